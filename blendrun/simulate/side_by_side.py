"""Engines that work side by side, each on its own part of a job: what they come to together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.cost.balance import Bound
from blendrun.simulate.base import Outcome, Timeline
from blendrun.simulate.portfolio import Candidate, Portfolio, choose, why_of

# Of a time line that is put together, where each engine's has its own.
_BUCKETS = 512


@dataclass(frozen=True, slots=True, eq=False)
class PartPortfolio:
    """numbers: i64, the part's prompts in the whole job; `portfolio` counts them from 0."""

    numbers: NDArray[np.int64]
    portfolio: Portfolio


def side_by_side(parts: Sequence[PartPortfolio], bound: Bound) -> Portfolio:
    """The whole job's portfolio. Every order on every mode takes as long as its slowest part.

    parts: 1 or more, simulated with the same orders and modes. bound: of the whole job.
    """
    portfolios = [part.portfolio for part in parts]
    count = sum(len(part.numbers) for part in parts)
    outputs, expected = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for part in parts:
        outputs[part.numbers], expected[part.numbers] = part.portfolio.outputs, part.portfolio.expected
    candidates = tuple(_together(parts, of) for of in zip(*(each.candidates for each in portfolios), strict=True))
    plain = _together(parts, [each.plain for each in portfolios])
    chosen, compared = choose(candidates), sum(each.part for each in portfolios)
    return Portfolio(
        candidates=candidates,
        chosen=chosen,
        why=why_of(chosen, candidates, plain, portfolios[0].step, compared),
        plain=plain,
        step=portfolios[0].step,
        outputs=outputs,
        expected=expected,
        bound=bound,
        practical_seconds=max(each.practical_seconds for each in portfolios),
        part=compared,
    )


def _together(parts: Sequence[PartPortfolio], each: Sequence[Candidate]) -> Candidate:
    """One order on one mode. Orders stand one behind the other; budgets and the rest are the slowest part's."""
    slowest = max(each, key=lambda candidate: candidate.seconds)
    orders = [of.fed.order if isinstance(of.fed, Blend) else of.fed for of in each]
    outcomes = [of.outcome for of in each]
    seconds = max(slowest.seconds, 1e-9)
    tokens = sum(of.tokens_per_second * max(of.seconds, 1e-9) for of in each)
    # All devices are paid for until the last one has ended.
    costs = [of.cost / max(of.seconds, 1e-9) * seconds for of in each if of.cost is not None]
    return replace(
        slowest,
        fed=Order(
            slowest.order,
            np.concatenate([part.numbers[order.prompt] for part, order in zip(parts, orders, strict=True)]),
            np.concatenate([order.side for order in orders]),
        ),
        outcome=_outcome(outcomes),
        tokens_per_second=tokens / seconds,
        cost=sum(costs) if costs else None,
    )


def _outcome(each: Sequence[Outcome]) -> Outcome:
    """Work adds up; time is that of the last to end, and so is the bound."""

    def total(name: str) -> int:
        return int(sum(getattr(outcome, name) for outcome in each))

    return Outcome(
        seconds=max(outcome.seconds for outcome in each),
        compute_seconds=max(outcome.compute_seconds for outcome in each),
        memory_seconds=max(outcome.memory_seconds for outcome in each),
        hit_tokens=total("hit_tokens"),
        prefill_tokens=total("prefill_tokens"),
        recomputed_tokens=total("recomputed_tokens"),
        decode_tokens=total("decode_tokens"),
        steps=total("steps"),
        retractions=total("retractions"),
        timeline=_timeline([outcome.timeline for outcome in each]),
        finished=np.concatenate([outcome.finished for outcome in each]),
        loaded_tokens=total("loaded_tokens"),
    )


def _timeline(each: Sequence[Timeline]) -> Timeline:
    """In buckets of equal time: what adds up is spread over the time it took, what is held is what each holds then."""
    seconds = max(float(line.seconds.sum()) for line in each)
    grid = np.linspace(0.0, seconds, _BUCKETS + 1)
    ends = [np.concatenate(([0.0], np.cumsum(line.seconds))) for line in each]

    def done(name: str) -> NDArray[np.float64]:
        found = np.zeros(_BUCKETS)
        for line, end in zip(each, ends, strict=True):
            running = np.concatenate(([0.0], np.cumsum(getattr(line, name))))
            found += np.diff(np.interp(grid, end, running))
        return found

    def held(name: str) -> NDArray[np.float64]:
        found = np.zeros(_BUCKETS)
        for line, end in zip(each, ends, strict=True):
            values = np.append(getattr(line, name), 0.0)
            found += values[np.searchsorted(end[1:], grid[1:] - seconds / _BUCKETS / 2)]
        return found

    return Timeline(
        steps=done("steps"),
        seconds=np.full(_BUCKETS, seconds / _BUCKETS),
        compute=done("compute"),
        memory=done("memory"),
        prefill=done("prefill"),
        decode=done("decode"),
        hits=done("hits"),
        held=held("held"),
        rows=held("rows"),
    )
