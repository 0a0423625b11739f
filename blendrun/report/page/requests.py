"""The requests of a run as a page shows them: how well lengths were known, which were cut, slow or failed."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.report.page.groups import Group, group_requests
from blendrun.report.page.tail import Tail, tail_of
from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.series import Admissions
from blendrun.store.records import RequestRecord

_SHOWN = 20
_MOST_FAILED = 10_000
# Longest side of the length map: 2 ** 20 tokens.
_OCTAVES = 20
# Answers that have a dot each.
MOST_DOTS = 2_000
# Why an answer ended that would have gone on.
CUT = "length"


@dataclass(frozen=True, slots=True)
class Named:
    """A request by its name. number: of all requests, from 1."""

    custom_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Slow:
    """A request that took long.

    number: of all requests, from 1. waited: seconds from the hand-over to the answer, the engine's queue included.
    """

    custom_id: str
    number: int
    waited: float
    prompt: int
    cached: int
    output: int
    planned_output: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that ended in an error."""

    custom_id: str
    number: int
    error: str


@dataclass(frozen=True, slots=True)
class Dot:
    """An answer by its length in tokens, of a choice. cut: whether it ended at its limit."""

    custom_id: str
    expected: int
    real: float
    cut: bool


@dataclass(frozen=True, slots=True)
class Requests:
    """Of all invocations of a run, put end to end; seconds long. errors: of `count`, those that ended in one.

    lengths: answers counted by (expected, real) length in octaves: cell (i, j) holds those of 2**i and 2**j tokens.
    dots: the same one by one, empty where there are more than MOST_DOTS. within_two: share of answers between half and
    twice of what was expected when they were handed over.
    invocations: that handed over requests. cut: answers that ended at their limit; cut_first: the first of them in the
    input. first, longest: an answered request each. tail: see `Tail`.
    """

    count: int = 0
    errors: int = 0
    seconds: float = 0.0
    invocations: int = 0
    groups: tuple[Group, ...] = ()
    lengths: tuple[tuple[int, int, int], ...] = ()
    dots: tuple[Dot, ...] = ()
    within_two: float | None = None
    expected_tokens: int = 0
    answered_tokens: int = 0
    slowest: tuple[Slow, ...] = ()
    failed: tuple[Failed, ...] = ()
    cut: int = 0
    cut_first: tuple[Named, ...] = ()
    first: Named | None = None
    longest: Named | None = None
    tail: Tail | None = None


def no_requests() -> Requests:
    return Requests()


def read_requests(path: Path, tree: Sequence[IcicleNode], admissions: Admissions) -> Requests:
    """Read the records of a run, a line at a time. tree: whose sub-trees requests are grouped by."""
    columns = _Columns()
    try:
        with path.open("rb") as file:
            decoder = msgspec.json.Decoder(RequestRecord)
            for line in file:
                try:
                    columns.add(decoder.decode(line))
                except msgspec.DecodeError:
                    # Torn by a kill; the file is appended to.
                    continue
    except OSError:
        return no_requests()
    return columns.requests(tree, admissions) if columns.begun else no_requests()


@dataclass(slots=True)
class _Columns:
    """Of a run of millions, only numbers are kept, and the few requests that are shown by name."""

    begun: array[float] = field(default_factory=lambda: array("d"))
    ended: array[float] = field(default_factory=lambda: array("d"))
    subtree: array[int] = field(default_factory=lambda: array("q"))
    index: array[int] = field(default_factory=lambda: array("q"))
    engine: array[int] = field(default_factory=lambda: array("q"))
    output: array[int] = field(default_factory=lambda: array("q"))
    offsets: list[float] = field(default_factory=list)
    cells: dict[tuple[int, int], int] = field(default_factory=dict)
    dots: list[Dot] = field(default_factory=list)
    slow: list[tuple[float, int, Slow]] = field(default_factory=list)
    failed: dict[int, Failed] = field(default_factory=dict)
    errors: int = 0
    cut: int = 0
    # Of those the last lines of the input, as numbers below 0: a heap keeps the first ones.
    cut_first: list[tuple[int, str]] = field(default_factory=list)
    first: Named | None = None
    longest: tuple[int, Named] | None = None
    expected: int = 0
    answered: int = 0
    near: int = 0
    known: int = 0
    runs: set[int] = field(default_factory=set)
    # Engines by start and replica, and the last one that is new.
    _engines: dict[tuple[int, int], int] = field(default_factory=dict)
    _newest: tuple[int, int] = (-1, -1)
    _last: float = 0.0

    def add(self, record: RequestRecord) -> None:
        engine = self._engine(record)
        offset = self.offsets[engine]
        ended = offset + record.ended
        self._last = max(self._last, ended)
        self.begun.append(offset + record.submitted)
        self.ended.append(ended)
        self.subtree.append(record.subtree)
        self.index.append(record.index)
        self.engine.append(engine)
        self.output.append(record.output)
        if record.error is not None:
            self.errors += 1
            if len(self.failed) < _MOST_FAILED:
                self.failed[record.row] = Failed(record.custom_id, record.row + 1, record.error)
            return
        # What failed once may be answered later.
        self.failed.pop(record.row, None)
        self._note_slow(record)
        self._note_named(record)
        self._note_length(record)

    def _note_slow(self, record: RequestRecord) -> None:
        waited = record.ended - record.submitted
        if len(self.slow) >= _SHOWN and waited <= self.slow[0][0]:
            return
        slow = Slow(
            record.custom_id,
            record.row + 1,
            round(waited, 3),
            record.prompt,
            record.cached,
            record.output,
            record.planned_output,
        )
        push = heapq.heappush if len(self.slow) < _SHOWN else heapq.heappushpop
        push(self.slow, (waited, len(self.begun), slow))

    def _note_named(self, record: RequestRecord) -> None:
        if self.first is None or record.row + 1 < self.first.number:
            self.first = Named(record.custom_id, record.row + 1)
        if self.longest is None or record.output > self.longest[0]:
            self.longest = record.output, Named(record.custom_id, record.row + 1)
        if was_cut(record):
            self.cut += 1
            if len(self.cut_first) < _SHOWN or -record.row > self.cut_first[0][0]:
                push = heapq.heappush if len(self.cut_first) < _SHOWN else heapq.heappushpop
                push(self.cut_first, (-record.row, record.custom_id))

    def _note_length(self, record: RequestRecord) -> None:
        choices = max(len(record.finish), 1)
        each = record.output / choices
        if record.planned_output <= 0 or each <= 0:
            return
        self.known += 1
        self.near += record.planned_output / 2 <= each <= record.planned_output * 2
        self.expected += record.planned_output * choices
        self.answered += record.output
        cell = _octave(record.planned_output), _octave(each)
        self.cells[cell] = self.cells.get(cell, 0) + 1
        if self.known <= MOST_DOTS:
            self.dots.append(Dot(record.custom_id, record.planned_output, round(each, 1), was_cut(record)))

    def _engine(self, record: RequestRecord) -> int:
        """Its number. A new one's clock begins again: behind all that was, or beside another replica's."""
        key = record.run, record.replica
        found = self._engines.get(key)
        if found is not None:
            return found
        before = self._engines.get(self._newest)
        beside = before is not None and record.replica != self._newest[1]
        late = max(record.run - self._newest[0], 0)
        self.offsets.append(self.offsets[before] + late if beside and before is not None else self._last)
        self._engines[key] = len(self._engines)
        self._newest = key
        self.runs.add(record.run)
        return self._engines[key]

    def requests(self, tree: Sequence[IcicleNode], admissions: Admissions) -> Requests:
        begun, ended = self._in_batch(admissions)
        subtree, output = (np.frombuffer(each, dtype=np.int64) for each in (self.subtree, self.output))
        return Requests(
            count=len(self.begun),
            errors=self.errors,
            seconds=round(self._last, 3),
            invocations=len(self.runs),
            groups=tuple(group_requests(tree, subtree, begun, ended, self._last)),
            lengths=tuple((expected, real, count) for (expected, real), count in sorted(self.cells.items())),
            dots=tuple(self.dots) if self.known <= MOST_DOTS else (),
            within_two=round(self.near / self.known, 4) if self.known else None,
            expected_tokens=self.expected,
            answered_tokens=self.answered,
            slowest=tuple(slow for _, _, slow in sorted(self.slow, reverse=True)),
            failed=tuple(self.failed.values())[:_SHOWN],
            cut=self.cut,
            cut_first=tuple(Named(name, 1 - row) for row, name in sorted(self.cut_first, reverse=True)),
            first=self.first,
            longest=self.longest[1] if self.longest else None,
            tail=tail_of(begun, ended, output),
        )

    def _in_batch(self, admissions: Admissions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When each request was in the engine's batch: f64, f64 (N,). It has many more than it runs: those wait."""
        begun, ended = np.frombuffer(self.begun), np.frombuffer(self.ended)
        subtree, index, engine = (
            np.frombuffer(column, dtype=np.int64) for column in (self.subtree, self.index, self.engine)
        )
        # What is not of the plan (requests run apart after a death) has numbers of its own.
        known = np.where(subtree >= 0, index, np.iinfo(np.int64).max)
        admitted = np.fmax(admissions.of(engine, known) + np.array(self.offsets)[engine], begun)
        return np.minimum(admitted, ended), ended


def was_cut(record: RequestRecord) -> bool:
    """Whether an answer ended at its limit; a limit of one token is meant to be reached."""
    return CUT in record.finish and record.output > len(record.finish)


def _octave(tokens: float) -> int:
    return min(max(round(float(np.log2(tokens))), 0), _OCTAVES)
