"""How many prefill tokens a step takes, and whether rows decode beside them: policies of scheduler and simulator."""

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

    def mixes(self, rows: int, context_tokens: int) -> bool:
        """Always, on an engine whose steps can have both."""
        return True


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

    def mixes(self, rows: int, context_tokens: int) -> bool:
        """Always, on an engine whose steps can have both."""
        return True


@dataclass(frozen=True, slots=True)
class TurnsBudget:
    """Prefill and decoding by turns: decode alone until few rows are left, then prefill alone until nothing comes in.

    An engine that prefills as soon as anything fits makes many small steps of it, each of which reads the weights.
    tokens: of a prefill step. drained: share of the rows at the end of a prefill turn with which the next one begins.
    Whose turn it is, is kept by whoever applies the policy.
    """

    tokens: int
    drained: float

    def __post_init__(self) -> None:
        if self.tokens < 1 or not 0 <= self.drained <= 1:
            raise ValueError(f"{self} would leave steps without work")

    def prefill_tokens(self, rows: int, context_tokens: int) -> int:
        """Most tokens of a step in a turn of prefill, whatever waits to be decoded meanwhile."""
        return self.tokens

    def mixes(self, rows: int, context_tokens: int) -> bool:
        """Never: a step is one or the other."""
        return False

    def is_due(self, rows: int, most: int) -> bool:
        """Whether a turn of prefill begins. most: rows at the end of the last one."""
        return rows <= self.drained * most


@dataclass(frozen=True, slots=True)
class CrossoverBudget:
    """Steps of `tokens`, prefill and decode together, where mixing wins; else prefill alone, `alone` tokens a step.

    Mixing hides prefill under the reading of the weights that decoding needs anyway. It costs what decode attention
    loses in a mixed step, where rows that decode go through the kernel made for prefill: `mixed` times the seconds of
    reading the cache.
    In prefill tokens, over the seconds of one: weight_tokens, row_tokens and cached_tokens as of `AdaptiveBudget`.
    """

    tokens: int
    alone: int
    mixed: float
    weight_tokens: float
    row_tokens: float
    cached_tokens: float

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.alone < 1 or self.mixed < 0:
            raise ValueError(f"{self} would leave steps without work")

    def prefill_tokens(self, rows: int, context_tokens: int) -> int:
        """Most prefill tokens of a step, beside `rows` answers being decoded or without them (`mixes`)."""
        return max(self.tokens - rows, 0) if self.mixes(rows, context_tokens) else self.alone

    def mixes(self, rows: int, context_tokens: int) -> bool:
        """Whether one step of both takes no longer than decoding and that part of a step of prefill alone."""
        prefill, decode = max(self.tokens - rows, 0), self.row_tokens * rows
        saved = prefill * max(1.0, self.weight_tokens / self.alone)
        saved += max(decode, self.weight_tokens) - max(prefill + decode, self.weight_tokens)
        return self.mixed * self.cached_tokens * (context_tokens + rows) <= saved


Budget = ConstantBudget | AdaptiveBudget | TurnsBudget | CrossoverBudget
