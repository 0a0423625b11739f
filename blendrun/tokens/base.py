"""The noun that the planner starts from: M prompts as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# Fields that are no columns of all prompts.
_APART = ("units", "offsets", "unit_tokens", "parts")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a line is to the engine that has it read several prompts, as a score does with its items.

    Such a line is one prompt of a plan: its first, and behind it of each other what an engine with a cache computes.
    count: i32 (M,), requests that the engine makes of it; 1 for most.
    first: i32 (M,), tokens of the first of them; 0 where there is one.
    common: i32 (M,), tokens that the first and the second begin with, for which the others wait; 0 where nothing waits.
    """

    count: NDArray[np.int32]
    first: NDArray[np.int32]
    common: NDArray[np.int32]

    def take(self, numbers: NDArray[np.int64]) -> Parts:
        """Of some of the prompts. numbers: i64 (n,)."""
        return Parts(self.count[numbers], self.first[numbers], self.common[numbers])


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """M prompts, numbered 0..M-1 in input order; every planner array of length M means these.

    A prompt is a sequence of units: token ids of a text job (`unit_tokens` 1), block ids of a trace (`unit_tokens`
    tokens a block, the last block of a prompt may be partial), or nothing at all for a trace without blocks: then
    prompts share nothing.

    row: i64 (M,), row of the job; ascending.
    units: i32 (U,), all prompts one after the other; usually memory-mapped. Read it in slices.
    offsets: i64 (M + 1,), prompt i is units[offsets[i]:offsets[i + 1]].
    prompt_tokens: i32 (M,), tokens of each prompt.
    root: u64 (M,), prompts share a prefix only where this is equal (hash of adapter, media, cache salt).
    cluster: u64 (M,), requests whose answers are alike in length: hash of endpoint, model, bound, schema.
    bound: i32 (M,), most output tokens a choice may have: what was asked for, clipped to what the context leaves; >= 0.
    choices: i32 (M,), answers a request wants, each decoded on its own from the shared prompt; >= 1.
    reference: i32 (M,), known output tokens of one choice, of a trace or a published answer; -1 where unknown.
    known: bool (M,), where `reference` is a fact of the request itself (a trace line, a fixed-length output), not an
        oracle's answer that only `--lengths reference` may use.
    parts: where lines are several requests to the engine; None where each is one.
    """

    row: NDArray[np.int64]
    units: NDArray[np.int32]
    offsets: NDArray[np.int64]
    unit_tokens: int
    prompt_tokens: NDArray[np.int32]
    root: NDArray[np.uint64]
    cluster: NDArray[np.uint64]
    bound: NDArray[np.int32]
    choices: NDArray[np.int32]
    reference: NDArray[np.int32]
    known: NDArray[np.bool_]
    parts: Parts | None = None

    def __len__(self) -> int:
        return len(self.row)

    def take(self, numbers: NDArray[np.int64]) -> Prompts:
        """Some of the prompts, without their units: what is known of a part of a job whose tree is there already.

        numbers: i64 (n,), ascending.
        """
        kept = {field.name: getattr(self, field.name)[numbers] for field in fields(self) if field.name not in _APART}
        units, offsets = np.zeros(0, dtype=np.int32), np.zeros(len(numbers) + 1, dtype=np.int64)
        parts = None if self.parts is None else self.parts.take(numbers)
        return Prompts(units=units, offsets=offsets, unit_tokens=self.unit_tokens, parts=parts, **kept)
