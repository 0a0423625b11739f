"""How many prefill tokens a step takes beside its decode rows: policies of the live scheduler and the simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConstantBudget:
    """Every step computes `tokens`, prefill and decode together: T*, or the engine's own chunk.

    T*: docs/paper.md#the-step-budget.
    """

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"a step of {self.tokens} tokens computes nothing")

    def prefill_tokens(self, rows: int, context_tokens: int) -> int:
        """Most prefill tokens beside `rows` answers being decoded, which have `context_tokens` in the cache."""
        return max(self.tokens - rows, 0)


@dataclass(frozen=True, slots=True)
class AdaptiveBudget:
    """Prefill that takes `ratio` times as long as the decoding that runs beside it, on parts of one device (pdmux).

    The job is done soonest if every step divides its time as the whole job does, whatever is in the pool just then: so
    `ratio` is that of all prefill over all decoding. (With ratio 1 prefill just hides under memory time.)

    floor: least tokens of a step, prefill and decode together. most: prefill tokens of a step at most.
    In prefill tokens, that is, over the seconds of one: weight_tokens: reading the weights once. row_tokens: the
    arithmetic of a decode row. cached_tokens: reading one cached token.
    """

    floor: int
    most: int
    ratio: float
    weight_tokens: float
    row_tokens: float
    cached_tokens: float

    def __post_init__(self) -> None:
        if self.floor < 1 or self.most < 1 or self.ratio < 0:
            raise ValueError(f"{self} would leave steps without work")

    def prefill_tokens(self, rows: int, context_tokens: int) -> int:
        """Most prefill tokens beside `rows` answers being decoded, which have `context_tokens` in the cache."""
        beside = max(self.weight_tokens, self.row_tokens * rows) + self.cached_tokens * (context_tokens + rows)
        return max(self.floor - rows, min(int(self.ratio * beside), self.most), 0)


Budget = ConstantBudget | AdaptiveBudget
