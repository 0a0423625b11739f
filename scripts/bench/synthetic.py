"""Synthetic prompts for the benchmarks of the planner: many, long and sharing as real jobs do, made in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendrun.tokens.base import Prompts

_VOCABULARY = 128_000
# Tokens all prompts begin with: what a chat template writes before the first message.
_TEMPLATE = 20
# Group prefixes are cut from one pool of random tokens.
_POOL = 16_000_000
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind, a part `share` of all: each begins with the prefix of its group.

    group_size: requests a group, in the mean.
    prefix: length of a group's prefix as a fraction of the mean prompt, in the mean over groups.
    """

    share: float
    group_size: int
    prefix: float


# System prompts, few-shot tasks, documents with questions, and requests of their own: about 35 % of tokens shared.
KINDS = (Kind(0.25, 20_000, 0.37), Kind(0.20, 2_000, 0.73), Kind(0.20, 6, 0.58), Kind(0.35, 1, 0.0))


def synthetic_prompts(
    path: Path, requests: int, tokens: int, seed: int = 0, kinds: tuple[Kind, ...] = KINDS
) -> Prompts:
    """Write about `tokens` token ids of `requests` prompts to `path` and return them, memory-mapped.

    Requests of all groups stand in random order, each with an output length from 1 to 4,096. The same arguments give
    the same prompts. Needs about 100 bytes a request and 0.3 GB.
    """
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, _VOCABULARY, _POOL, dtype=np.int32)
    begin, shared = _groups(rng, requests, tokens / requests, kinds)
    own = np.maximum(rng.lognormal(0.0, 0.8, requests), 0.05)
    budget = max(tokens - int(shared.sum()) - _TEMPLATE * requests, requests)
    own = np.maximum(own * (budget / own.sum()), 1).astype(np.int64)
    length = _TEMPLATE + shared + own
    offsets = np.concatenate(([0], np.cumsum(length)))
    _write(path, rng, pool, begin, shared, offsets)
    output = np.clip(rng.lognormal(4.5, 1.3, requests), 1, 4_096).astype(np.int32)
    return Prompts(
        row=np.arange(requests, dtype=np.int64),
        units=np.memmap(path, dtype=np.int32, mode="r"),
        offsets=offsets,
        unit_tokens=1,
        prompt_tokens=length.astype(np.int32),
        root=np.zeros(requests, dtype=np.uint64),
        cluster=rng.integers(0, 8, requests, dtype=np.uint64),
        bound=np.full(requests, 4_096, dtype=np.int32),
        choices=np.ones(requests, dtype=np.int32),
        reference=output,
        known=np.ones(requests, dtype=np.bool_),
    )


def _groups(
    rng: np.random.Generator, requests: int, mean: float, kinds: tuple[Kind, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each request's group prefix begins in the pool, and its tokens after the template: i64 (requests,) each."""
    kind = rng.choice(len(kinds), requests, p=[each.share for each in kinds])
    begin, length = np.zeros(requests, np.int64), np.zeros(requests, np.int64)
    for number, each in enumerate(kinds):
        rows = np.flatnonzero(kind == number)
        count = max(len(rows) // each.group_size, 1)
        group = rng.integers(0, count, len(rows))
        size = rng.gamma(8.0, each.prefix * mean / 8.0, count).astype(np.int64) - _TEMPLATE
        size = np.clip(size, 0, _POOL // 4)
        begin[rows] = rng.integers(0, _POOL - size.max(initial=0), count)[group]
        length[rows] = size[group]
    return begin, length


def _write(
    path: Path,
    rng: np.random.Generator,
    pool: NDArray[np.int32],
    begin: NDArray[np.int64],
    shared: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> None:
    template = rng.integers(0, _VOCABULARY, _TEMPLATE, dtype=np.int32)
    with path.open("wb") as file:
        for row in range(0, len(begin), _ROWS_AT_ONCE):
            upto = min(row + _ROWS_AT_ONCE, len(begin))
            ids = rng.integers(0, _VOCABULARY, int(offsets[upto] - offsets[row]), dtype=np.int32)
            at = offsets[row:upto] - offsets[row]
            ids[(at[:, None] + np.arange(_TEMPLATE)).ravel()] = np.tile(template, upto - row)
            for place, first, length in zip(
                (at + _TEMPLATE).tolist(), begin[row:upto].tolist(), shared[row:upto].tolist(), strict=True
            ):
                ids[place : place + length] = pool[first : first + length]
            file.write(ids.data)
