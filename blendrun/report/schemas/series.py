"""What an engine did over time, in few enough points for a picture: of a plan's simulation or of a run's step log."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendrun.simulate.base import Timeline
from blendrun.store.steps import logged_steps

BUCKETS = 160


@dataclass(frozen=True, slots=True)
class Series:
    """T buckets of equal length. prefill, decode: tokens/s. hits: prompt tokens/s found in the cache. held: KV tokens
    in use, on the mean.

    seconds: length of all; bucket i ends at (i + 1) / T of it.
    """

    seconds: float
    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    hits: tuple[float, ...]
    held: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepTotals:
    """All steps of a log. starts: engines whose steps it holds. budget_share: mean prefill tokens over the budget of
    prefill steps that had one, null without any.
    """

    steps: int
    starts: int
    retracted: int
    budget_share: float | None


def planned_series(line: Timeline) -> Series | None:
    """Of a simulated order; None where nothing was simulated."""
    if not len(line.seconds):
        return None
    return _series(line.seconds, line.prefill, line.decode, line.hits, line.held)


@dataclass(frozen=True, slots=True)
class Admissions:
    """When requests came into the batch: of each engine in turn, seconds since its first step, by place in the plan.

    NaN where never.
    """

    engines: tuple[NDArray[np.float64], ...] = ()

    def of(self, engine: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of requests by the number of their engine and their place: f64, NaN where unknown."""
        found = np.full(len(index), np.nan)
        for number, times in enumerate(self.engines):
            mine = np.flatnonzero((engine == number) & (index < len(times)))
            found[mine] = times[index[mine]]
        return found


def run_series(path: Path) -> tuple[Series | None, StepTotals, Admissions]:
    """Of a run's step log, engines that came one after the other put end to end; None where there is no step."""
    time, seconds, prefill, decode, hits, held = (array("d") for _ in range(6))
    apart = bytearray()
    starts, retracted, offset, first, end = 0, 0, 0.0, 0.0, 0.0
    shares = array("d")
    places, moments = [array("q")], [array("d")]
    for step in logged_steps(path):
        began = float(step["time"])
        if step["step"] == 0 or not starts:
            # An engine's first step waits for nothing: its clock began while it loaded.
            offset = end - began
            starts, first = starts + 1, began
            places.append(array("q"))
            moments.append(array("d"))
        places[-1].extend(step["admitted"])
        moments[-1].extend([began - first] * len(step["admitted"]))
        time.append(began + offset)
        seconds.append(float(step["seconds"] or 0.0))
        end = max(end, time[-1] + seconds[-1])
        apart.append(bool(step.get("parallel")) and step["prefill_tokens"] > 0)
        prefill.append(step["prefill_tokens"])
        decode.append(step["decode_rows"])
        hits.append(step["hit_tokens"])
        held.append(step["kv_used"])
        retracted += len(step["sent_back"])
        if step["budget"] and step["prefill_tokens"]:
            shares.append(step["prefill_tokens"] / step["budget"])
    totals = StepTotals(len(time), starts, retracted, round(float(np.mean(shares)), 4) if shares else None)
    admissions = Admissions(tuple(_first(*each) for each in zip(places[1:], moments[1:], strict=True)))
    if not len(time):
        return None, totals, admissions
    columns = np.array([time, seconds, prefill, decode, hits, held])
    beside = np.frombuffer(apart, dtype=np.bool_)
    streams = [columns[:, mine] for mine in (~beside, beside) if mine.any()]
    # What is held is told of once.
    streams[-1][5] *= len(streams) == 1
    least = 2 if len(streams) == 1 else BUCKETS
    lines = [_stream(stream, least) for stream in streams]
    return lines[0] if len(lines) == 1 else _together(lines), totals, admissions


def _stream(columns: NDArray[np.float64], least: int) -> Series:
    """Of steps one after the other: f64 (6, N) of when they begin, seconds, prefill, decode, hits and held."""
    begun, seconds, *rest = columns
    # Until the next one begins: what the host does between two forward passes is part of a step.
    lasted = np.diff(begun, prepend=0.0, append=begun[-1] + max(seconds[-1], 1e-6))
    # Before the first one nothing is done, where the other stream began earlier.
    first = int(lasted[0] <= 0.0)
    prefill, decode, hits, held = (np.insert(each, 0, 0.0)[first:] for each in rest)
    return _series(lasted[first:], prefill, decode, hits, held, least)


def replicas_series(paths: Sequence[Path]) -> tuple[Series | None, StepTotals, Admissions]:
    """The same of several replicas' logs, taken together: each begins with its first engine's first step.

    When requests came into the batch is told of one replica only.
    """
    found = [run_series(path) for path in paths]
    if len(found) == 1:
        return found[0]
    lines, totals = [series for series, _, _ in found if series is not None], [each for _, each, _ in found]
    shares = [(each.steps, each.budget_share) for each in totals if each.budget_share is not None]
    steps = sum(count for count, _ in shares)
    every = StepTotals(
        sum(each.steps for each in totals),
        sum(each.starts for each in totals),
        sum(each.retracted for each in totals),
        round(sum(count * share for count, share in shares) / steps, 4) if steps else None,
    )
    return (_together(lines) if lines else None), every, Admissions()


def _together(lines: Sequence[Series]) -> Series:
    seconds = max(line.seconds for line in lines)
    grid = np.linspace(0.0, seconds, BUCKETS + 1)
    width = max(float(grid[1]), 1e-12)

    def total(name: str) -> tuple[float, ...]:
        found = np.zeros(BUCKETS)
        for line in lines:
            values = np.array(getattr(line, name))
            at = np.linspace(0.0, line.seconds, len(values) + 1)
            running = np.concatenate(([0.0], np.cumsum(values) * line.seconds / len(values)))
            found += np.diff(np.interp(grid, at, running))
        return tuple(float(f"{value:.5g}") for value in found / width)

    return Series(seconds, total("prefill"), total("decode"), total("hits"), total("held"))


def _first(places: array[int], moments: array[float]) -> NDArray[np.float64]:
    """The first moment of each place: what is sent back is admitted again."""
    index = np.array(places, dtype=np.int64)
    times = np.full(int(index.max(initial=-1)) + 1, np.nan)
    # Of several values for one place the last one written stays.
    times[index[::-1]] = np.array(moments, dtype=np.float64)[::-1]
    return times


def _series(
    seconds: ArrayLike, prefill: ArrayLike, decode: ArrayLike, hits: ArrayLike, held: ArrayLike, least: int = 2
) -> Series:
    """least: buckets, where there are fewer steps."""
    lasted = np.maximum(np.asarray(seconds, dtype=np.float64), 0.0)
    at = np.concatenate(([0.0], np.cumsum(lasted)))
    grid = np.linspace(0.0, at[-1], min(BUCKETS, max(len(lasted), least)) + 1)
    width = max(float(grid[1]), 1e-12)

    def mean(each: NDArray[np.float64]) -> tuple[float, ...]:
        """What adds up over steps, a second of each bucket."""
        total = np.concatenate(([0.0], np.cumsum(each)))
        return tuple(float(f"{value:.5g}") for value in np.diff(np.interp(grid, at, total)) / width)

    def column(each: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(each, dtype=np.float64)

    return Series(
        seconds=round(float(at[-1]), 4),
        prefill=mean(column(prefill)),
        decode=mean(column(decode)),
        hits=mean(column(hits)),
        held=mean(column(held) * lasted),
    )
