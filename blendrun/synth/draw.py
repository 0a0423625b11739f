"""Requests of one kind, drawn: their lengths and groups, and what the first n of them come to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.context import decode_tokens, decode_window_tokens
from blendrun.models.card import ModelCard
from blendrun.synth.kinds import Kind

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """N requests of a kind, all i64 (N,): prompt and output tokens, and group (0 to kind.groups - 1)."""

    kind: Kind
    prompt: Counts
    output: Counts
    group: Counts

    def first(self, count: int) -> Drawn:
        """The first `count` of them."""
        return Drawn(self.kind, self.prompt[:count], self.output[:count], self.group[:count])

    @cached_property
    def saved(self) -> Counts:
        """Prompt tokens that an infinite prefix cache saves of each: the whole prefix, but for the first of its group,
        and for the very first one nothing. i64 (N,).
        """
        saved = np.full(len(self.prompt), self.kind.prefix)
        saved[np.unique(self.group, return_index=True)[1]] = self.kind.system
        saved[:1] = 0
        return saved

    @cached_property
    def tokens(self) -> int:
        """Prompt tokens of all."""
        return int(self.prompt.sum())


def draw(kind: Kind, count: int, seed: int) -> Drawn:
    """`count` requests. A larger count begins with the same ones."""
    # A stream for each column: how many are drawn of one moves no other.
    own, output, group = (np.random.default_rng([seed, *kind.name.encode(), column]) for column in range(3))
    return Drawn(
        kind,
        kind.prefix + _lengths(own, kind.own, kind.prompt_spread, count),
        _lengths(output, kind.output, kind.output_spread, count),
        group.integers(0, kind.groups, count),
    )


def kv_bytes(drawn: Drawn, model: ModelCard, value_bytes: float, stretch: float = 1.0) -> NDArray[np.float64]:
    """Bytes of KV cache that decoding each of them reads: f64 (N,).

    The paper's Mem (docs/paper.md#cost-of-a-request) times the bandwidth.
    stretch: factor on the answers.
    """
    prompt, output = drawn.prompt.astype(np.float64), stretched(drawn.output, stretch).astype(np.float64)
    layers: NDArray[np.float64] = model.full_attention_layers * decode_tokens(prompt, output, output**2)
    if model.sliding_window is not None:
        window = decode_window_tokens(prompt, output, output**2, model.sliding_window.window)
        layers += (model.layers - model.full_attention_layers) * window
    return layers * (model.kv_bytes_per_token(value_bytes) / model.layers)


def stretched(output: Counts, stretch: float) -> Counts:
    """Answers a factor longer, in whole tokens, at least 1: i64 as `output`."""
    longer: Counts = np.maximum(np.rint(output * stretch), 1).astype(np.int64)
    return longer


def _lengths(rng: np.random.Generator, mean: float, spread: float, count: int) -> Counts:
    """Log-normal with this mean and coefficient of variation, rounded, at least 1: i64 (count,)."""
    square = np.log1p(spread**2)
    drawn = rng.lognormal(np.log(mean) - square / 2, np.sqrt(square), count)
    lengths: Counts = np.maximum(np.rint(drawn), 1).astype(np.int64)
    return lengths
