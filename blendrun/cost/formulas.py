"""What a job demands of the machine, node by node of its prefix tree.

The paper's formulas (docs/paper.md#cost-of-a-request) from the leaves up (docs/paper.md#the-resource-aware-tree), with
these corrections:

- the layers' parameters for every computed token, those that a token is multiplied with, and the output head for
  sampled positions only (docs/paper.md#parameters-that-a-token-is-multiplied-with);
- causal prefill attention that grows with depth (docs/paper.md#causal-attention);
- the mean of d^2 beside that of d (docs/paper.md#both-moments-of-a-length);
- on request decode kernels that read a shared prefix once (docs/paper.md#prefixes-held-once-read-by-many).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.base import Demand, Machine
from blendrun.cost.context import (
    context_token_layers,
    decode_tokens,
    decode_window_tokens,
    prefill_token_layers,
)
from blendrun.lengths.base import Lengths
from blendrun.models.card import ModelCard
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

Array = NDArray[np.float64]


def demand(
    tree: PrefixTree,
    prompts: Prompts,
    lengths: Lengths,
    model: ModelCard,
    machine: Machine,
    *,
    shared_reads: int | None = None,
) -> Demand:
    """The demand of each of the K nodes on its own. Of `machine` only the bytes of a cached value count.

    Each shared token counts once, at the node that holds it. An engine never takes a whole prompt from its cache: the
    last token is computed again for its logits. So a copy of the prompt before it in depth-first order computes one
    token at its leaf, and so does each choice after a request's first. (A prompt that only begins another comes before
    it in that order and computes its own last token, which the tree holds at the node above.)
    shared_reads: the engine's decode kernels read a segment of so many tokens or more once for all who share it; see
        `_shared_kv_tokens`. None: they do not.
    """
    rows = tree.prompt
    choices = prompts.choices[rows].astype(np.float64)
    mean, square = lengths.mean[rows], lengths.square[rows]
    prompt = tree.depth[tree.leaf].astype(np.float64)
    again = np.where(prompt > 0, choices - (tree.shared < prompt), 0.0)

    tokens = tree.segment.astype(np.float64)
    tokens[tree.leaf] += again + choices * mean
    flops = 2.0 * model.layer_parameters_active * tokens
    pairs = prefill_token_layers(model, tree.start.astype(np.float64), tree.depth.astype(np.float64))
    pairs[tree.leaf] += again * context_token_layers(model, prompt)
    flops += model.attention_flops_per_pair * pairs
    # One logit row for each output token and one more that ends the answer
    # (docs/paper.md#parameters-that-a-token-is-multiplied-with).
    flops[tree.leaf] += 2.0 * model.head_parameters * choices * (mean + 1)

    layer_bytes = model.kv_bytes_per_token(machine.value_bytes) / model.layers
    if shared_reads is None:
        return Demand(tokens, flops, layer_bytes * _kv_tokens(tree, model, choices, mean, square))
    read = _shared_kv_tokens(tree, model, choices, mean, square, shared_reads)
    return Demand(tokens, flops, layer_bytes * read, shares_reads=True)


def _kv_tokens(tree: PrefixTree, model: ModelCard, choices: Array, mean: Array, square: Array) -> Array:
    """Token-layers that decoding reads: f64 (K,), each choice of each leaf on its own."""
    prompt = tree.depth[tree.leaf].astype(np.float64)
    total = np.zeros(len(tree))
    total[tree.leaf] = choices * (
        model.full_attention_layers * decode_tokens(prompt, mean, square)
        + _window_token_layers(model, prompt, mean, square)
    )
    return total


def _shared_kv_tokens(
    tree: PrefixTree, model: ModelCard, choices: Array, mean: Array, square: Array, least: int
) -> Array:
    """Token-layers that decoding reads with shared-prefix kernels: f64 (K,), inner nodes included.

    A segment is read once a step while any answer below it is being decoded: all below are taken to be resident
    together, which is the least that can be read. What the answers themselves add is read by each alone, and so are
    segments of fewer than `least` tokens, and sliding windows, which soon leave the prefix behind.
    """
    prompt = tree.depth[tree.leaf].astype(np.float64)
    steps = np.zeros(len(tree))
    steps[tree.leaf] = mean
    own = np.zeros(len(tree))
    own[tree.leaf] = choices * mean
    each = np.where(tree.segment >= least, _largest_below(tree, steps), tree.subtree_sum(own))
    total: Array = model.full_attention_layers * tree.segment * each
    total[tree.leaf] += choices * (
        model.full_attention_layers * square / 2 + _window_token_layers(model, prompt, mean, square)
    )
    return total


def _window_token_layers(model: ModelCard, prompt: Array, mean: Array, square: Array) -> Array:
    window = model.sliding_window
    if window is None:
        return np.zeros_like(prompt)
    sliding = model.layers - model.full_attention_layers
    return sliding * decode_window_tokens(prompt, mean, square, window.window)


def _largest_below(tree: PrefixTree, own: Array) -> Array:
    """The largest value in each node's sub-tree: f64 (K,)."""
    largest, parent = own.tolist(), tree.parent.tolist()
    for node in range(len(tree) - 1, 0, -1):
        largest[parent[node]] = max(largest[parent[node]], largest[node])
    return np.array(largest)
