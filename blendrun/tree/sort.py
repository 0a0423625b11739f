"""Prompts in lexicographic order, and what neighbours share: a merge sort that carries longest common prefixes.

Each prompt carries the units it shares with the one before it in its sorted run, and its next unit behind them. Merging
two runs compares these two numbers; memory of a prompt is read only where both agree, and from there on, so that no
unit known to be equal is read again (Ng and Kakehi, "Merging string sequences by longest common prefixes", 2008). Work
is O(M log M + shared units) whatever the input: a chain of prompts each within the next is as harmless as many equal
ones. The sort is stable, so the order is unique, however many threads there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from blendrun.events import Listener, Progress, ignore
from blendrun.tree.compiled import Kernel
from blendrun.tree.interpreted import interprets
from blendrun.tree.merge import Int32s, Int64s, join_pieces, lower_bound, merge_runs, sort_run

# Prompts sorted by one call: enough to be worth a thread, few enough that what is read of them fits a core's cache.
_RUN = 8_192
_MAX_THREADS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Strings:
    """M strings of units to sort.

    units: i32 (U,). begin: i64 (M,), where each string begins in it. length: i32 (M,), its units.
    root: i32 (M,), compared before the first unit. tail: i32 (M,), compared behind the last one (the shorter of two
    prompts that end in the same partial block comes first).
    """

    units: Int32s
    begin: Int64s
    length: Int32s
    root: Int32s
    tail: Int32s

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def columns(self) -> tuple[Int32s, Int64s, Int32s, Int32s, Int32s]:
        """What the kernels take."""
        return self.units, self.begin, self.length, self.root, self.tail


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Sorted runs. perm: i32 (M,), numbers of strings; lcp: i32 (M,), units shared with the one before, -1 at the begin
    of a run and where not even `root` is equal; following: i64 (M,), the unit behind them (`root` behind -1)."""

    perm: Int32s
    lcp: Int32s
    following: Int64s

    @classmethod
    def empty(cls, count: int) -> Runs:
        return cls(np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int64))

    @property
    def columns(self) -> tuple[Int32s, Int32s, Int64s]:
        """What the kernels take."""
        return self.perm, self.lcp, self.following


def sort_strings(strings: Strings, listener: Listener = ignore, threads: int | None = None) -> tuple[Int32s, Int32s]:
    """Order of the strings (i32 (M,), their numbers) and units shared with the one before (i32 (M,), -1 for the first
    and where `root` differs). Equal strings keep their order.

    listener: told the progress in strings written. Memory: 32 bytes a string.
    """
    count, threads = len(strings), threads or min(_cores(), _MAX_THREADS)
    # Powers of two, so that runs pair up in every round.
    parts = 1 << max(-(-count // _RUN) - 1, 0).bit_length()
    bounds = [count * part // parts for part in range(parts + 1)]
    rounds = max(-(-count // parts) - 1, 0).bit_length()
    total, done = count * parts.bit_length(), 0
    here, there = Runs.empty(count), Runs.empty(count)
    with ThreadPoolExecutor(threads) as pool:

        def each(kernel: Kernel[..., Any], tasks: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> None:
            nonlocal done
            columns = (*strings.columns, *here.columns, *there.columns)
            # Without the compiler, threads would wait for each other; and are no place for what is asked of this one.
            run = map if interprets() else pool.map
            for size, _ in zip(sizes, run(lambda task: kernel(*columns, *task), tasks), strict=True):
                done += size
                listener(Progress(done, total, "strings"))

        runs = list(pairwise(bounds))
        each(sort_run, [(*run, rounds) for run in runs], [end - begin for begin, end in runs])
        if rounds % 2:
            here, there = there, here
        while len(bounds) > 2:
            pieces = max(1, threads // (len(bounds) // 2))
            triples = zip(bounds[:-2:2], bounds[1:-1:2], bounds[2::2], strict=True)
            tasks = [task for triple in triples for task in _split(strings, here.perm, triple, pieces)]
            each(merge_runs, tasks, [task[1] - task[0] + task[3] - task[2] for task in tasks])
            bounds, here, there = bounds[::2], there, here
            for out in {task[4] for task in tasks}.difference(bounds):
                join_pieces(*strings.columns, *here.columns, out)
    return here.perm, here.lcp


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _split(strings: Strings, perm: Int32s, bounds: tuple[int, int, int], pieces: int) -> list[tuple[int, ...]]:
    """The merge of runs [begin, middle) and [middle, end) as merges that do not touch one another.

    Each is (begin and end in the first run, begin and end in the second, begin of what comes out).
    """
    begin, middle, end = bounds
    first = [begin + (middle - begin) * piece // pieces for piece in range(pieces + 1)]
    inner = [lower_bound(*strings.columns, perm, middle, end, int(perm[place])) for place in first[1:-1]]
    second = [middle, *inner, end]
    cuts = zip(pairwise(first), pairwise(second), strict=True)
    return [(*a, *b, a[0] + b[0] - middle) for a, b in cuts]
