"""How much context attention looks at: sums over tokens and layers, sliding windows included.

A token-layer is one cached token that one query token attends to in one layer. Times the card's
`attention_flops_per_pair` it is arithmetic; times the bytes that a token takes in one layer it is memory traffic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.models.card import ModelCard

Array = NDArray[np.float64]


def prefill_token_layers(model: ModelCard, start: Array, depth: Array) -> Array:
    """Token-layers of prefilling the prompt tokens from depth `start` to `depth`, all f64 of one shape.

    Causal: token i attends to i tokens, itself among them, so the sum grows with depth^2 - start^2. Over a whole prompt
    that is p^2 / 2 per layer, half of the paper's 4 p^2 H L, which counts the upper triangle too
    (docs/paper.md#causal-attention).
    """
    full = model.full_attention_layers
    total: Array = full * (_triangle(depth) - _triangle(start))
    window = model.sliding_window
    if window is None:
        return total
    within = _triangle(np.minimum(depth, window.window)) - _triangle(np.minimum(start, window.window))
    beyond = np.maximum(depth, window.window) - np.maximum(start, window.window)
    total += (model.layers - full) * (within + window.window * beyond)
    return total


def context_token_layers(model: ModelCard, depth: Array) -> Array:
    """Token-layers of one query token at the end of `depth` tokens, itself among them; f64 of the shape of `depth`."""
    full = model.full_attention_layers
    total: Array = full * depth
    window = model.sliding_window
    if window is not None:
        total += (model.layers - full) * np.minimum(depth, window.window)
    return total


def decode_tokens(prompt: Array, mean: Array, square: Array) -> Array:
    """Tokens that one full-attention layer reads to decode one answer: p E[d] + E[d^2] / 2.

    The paper's Mem(r) (docs/paper.md#cost-of-a-request), with the mean of d^2 in place of the mean's square
    (docs/paper.md#both-moments-of-a-length).
    prompt: p. mean, square: means of d and of d^2. All f64 of one shape.
    """
    return prompt * mean + square / 2


def decode_window_tokens(prompt: Array, mean: Array, square: Array, window: int) -> Array:
    """The same for a layer that sees at most the last `window` tokens.

    What is read depends on where p + d crosses the window, so two moments of d do not decide it. d is taken to be 0 or
    E[d^2]/E[d], the two values that have both moments. That is exact where d is certain, where every answer ends
    within the window (then this is `decode_tokens`) and where the prompt fills it (then it is window * E[d]).
    """
    longest = np.divide(square, mean, out=np.zeros_like(mean), where=mean > 0)
    weight = np.divide(mean, longest, out=np.zeros_like(mean), where=longest > 0)
    growing = np.clip(window - prompt, 0.0, longest)
    total: Array = weight * (prompt * growing + growing * growing / 2 + window * (longest - growing))
    return total


def _triangle(tokens: Array) -> Array:
    """1 + 2 + ... + tokens."""
    return tokens * (tokens + 1) / 2
