"""The requests of a run as a page shows them: what ran when, how well lengths were known, which were slow or failed."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.series import Admissions
from blendrun.store.records import RequestRecord

_BINS = 120
_GROUPS = 10
_SHOWN = 20
_MOST_FAILED = 10_000
_REST = "all others"
# Longest side of the length map: 2 ** 20 tokens.
_OCTAVES = 20


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of one sub-tree. running: how many were in the engine's batch, on the mean of each of T buckets of the
    run's time; where the engine logged no steps, how many it had.
    """

    label: str
    requests: int
    running: tuple[float, ...]


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
class Requests:
    """Of all invocations of a run, put end to end; seconds long.

    lengths: answers counted by (expected, real) length in octaves: cell (i, j) holds those of 2**i and 2**j tokens.
    within_two: share of answers between half and twice of what was expected when they were handed over.
    """

    count: int = 0
    seconds: float = 0.0
    groups: tuple[Group, ...] = ()
    lengths: tuple[tuple[int, int, int], ...] = ()
    within_two: float | None = None
    expected_tokens: int = 0
    answered_tokens: int = 0
    slowest: tuple[Slow, ...] = ()
    failed: tuple[Failed, ...] = ()


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
    offsets: list[float] = field(default_factory=list)
    cells: dict[tuple[int, int], int] = field(default_factory=dict)
    slow: list[tuple[float, int, Slow]] = field(default_factory=list)
    failed: dict[int, Failed] = field(default_factory=dict)
    expected: int = 0
    answered: int = 0
    near: int = 0
    known: int = 0
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
        if record.error is not None:
            if len(self.failed) < _MOST_FAILED:
                self.failed[record.row] = Failed(record.custom_id, record.row + 1, record.error)
            return
        # What failed once may be answered later.
        self.failed.pop(record.row, None)
        waited = record.ended - record.submitted
        if len(self.slow) < _SHOWN or waited > self.slow[0][0]:
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
        each = record.output / max(len(record.finish), 1)
        if record.planned_output > 0 and each > 0:
            self.known += 1
            self.near += record.planned_output / 2 <= each <= record.planned_output * 2
            self.expected += record.planned_output * max(len(record.finish), 1)
            self.answered += record.output
            cell = _octave(record.planned_output), _octave(each)
            self.cells[cell] = self.cells.get(cell, 0) + 1

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
        return self._engines[key]

    def requests(self, tree: Sequence[IcicleNode], admissions: Admissions) -> Requests:
        slowest = [slow for _, _, slow in sorted(self.slow, reverse=True)]
        return Requests(
            count=len(self.begun),
            seconds=round(self._last, 3),
            groups=tuple(self._groups(tree, admissions)),
            lengths=tuple((expected, real, count) for (expected, real), count in sorted(self.cells.items())),
            within_two=round(self.near / self.known, 4) if self.known else None,
            expected_tokens=self.expected,
            answered_tokens=self.answered,
            slowest=tuple(slowest),
            failed=tuple(self.failed.values())[:_SHOWN],
        )

    def _groups(self, tree: Sequence[IcicleNode], admissions: Admissions) -> list[Group]:
        begun, ended = np.frombuffer(self.begun), np.frombuffer(self.ended)
        subtree, index, engine = (
            np.frombuffer(column, dtype=np.int64) for column in (self.subtree, self.index, self.engine)
        )
        # What is not of the plan (requests run apart after a death) has numbers of its own.
        known = np.where(subtree >= 0, index, np.iinfo(np.int64).max)
        # The engine has many more than it runs: those wait in its queue.
        admitted = np.fmax(admissions.of(engine, known) + np.array(self.offsets)[engine], begun)
        begun = np.minimum(admitted, ended)
        chosen = _cut(tree)
        number = np.full(len(begun), len(chosen), dtype=np.int64)
        for place, node in enumerate(chosen):
            number[(subtree >= node.node) & (subtree < node.end)] = place
        groups = []
        for place in range(len(chosen) + 1):
            mine = number == place
            if not mine.any():
                continue
            label = _label(chosen[place]) if place < len(chosen) else _REST if chosen else "all requests"
            groups.append(Group(label, int(mine.sum()), _running(begun[mine], ended[mine], self._last)))
        return groups


def _octave(tokens: float) -> int:
    return min(max(round(float(np.log2(tokens))), 0), _OCTAVES)


def _label(node: IcicleNode) -> str:
    return f"{node.example} ({node.depth:,} tokens shared by {node.requests:,})"


def _cut(tree: Sequence[IcicleNode]) -> list[IcicleNode]:
    """Up to `_GROUPS` disjoint sub-trees, found by opening the largest one again and again."""
    nodes = [node for node in tree if node.node >= 0]
    if not nodes:
        return []
    below: dict[int, list[IcicleNode]] = {}
    parents: list[IcicleNode] = []
    for node in sorted(nodes, key=lambda each: each.node):
        while parents and parents[-1].end <= node.node:
            parents.pop()
        if parents:
            below.setdefault(parents[-1].node, []).append(node)
        parents.append(node)
    groups = [node for node in nodes if node.level == 0]
    while True:
        # What is shared by one request alone is no group.
        open_ = [node for node in groups if any(child.requests > 1 for child in below.get(node.node, []))]
        if not open_:
            break
        largest = max(open_, key=lambda each: each.requests)
        children = [child for child in below[largest.node] if child.requests > 1]
        if len(groups) - 1 + len(children) > _GROUPS and len(groups) > 1:
            break
        groups.remove(largest)
        groups += sorted(children, key=lambda each: -each.requests)[:_GROUPS]
    return sorted((node for node in groups if node.level > 0), key=lambda each: -each.requests)


def _running(begun: NDArray[np.float64], ended: NDArray[np.float64], seconds: float) -> tuple[float, ...]:
    """Mean number at once in each of `_BINS` buckets: the slope of the time that all spend between two moments."""
    grid = np.linspace(0.0, max(seconds, 1e-9), _BINS + 1)
    starts, ends = np.sort(begun), np.sort(ended)
    spent = _before(starts, grid) - _before(ends, grid)
    mean = np.diff(spent) / grid[1]
    # What rounding leaves of nothing is nothing.
    return tuple(float(f"{value:.4g}") for value in np.where(mean > 1e-6, mean, 0.0))


def _before(moments: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the seconds from each of `moments` (sorted) to each of `grid`, those to come left out."""
    total = np.concatenate(([0.0], np.cumsum(moments)))
    count = np.searchsorted(moments, grid)
    return np.asarray(count * grid - total[count], dtype=np.float64)
