"""The paper's cost formulas as printed: for tests and for comparisons. Each says which heading explains it.

Nothing is corrected here; `formulas` has those that plans are made with. Prompt and output lengths are tokens and
may be numbers or arrays; parameters, hidden, kv_width (n_kv_heads * head_dim) and layers are the model's; flops is
FLOP/s and bandwidth byte/s, both peak rates; a cached value has 2 bytes.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Tokens = TypeVar("Tokens", float, NDArray[np.float64])

# Keys and values of 2 bytes each: the paper's 2 * 2.
BYTES_PER_CHANNEL = 4


def paper_compute_seconds(
    prompt: Tokens,
    output: Tokens,
    parameters: float,
    hidden: int,
    layers: int,
    flops: float,
    attention: bool = True,
) -> Tokens:
    """Comp(r) = (2 (p + d) P + 4 p^2 H L) / compute, in seconds (docs/paper.md#cost-of-a-request).

    attention: False drops the p^2 term, as the paper does once it derives the schedule.
    """
    work = 2 * (prompt + output) * parameters
    if attention:
        work = work + 4 * prompt * prompt * hidden * layers
    return work / flops


def paper_memory_seconds(prompt: Tokens, output: Tokens, kv_width: int, layers: int, bandwidth: float) -> Tokens:
    """Mem(r) = (p d + d^2 / 2) H_kv L 4 / bandwidth, in seconds (docs/paper.md#cost-of-a-request)."""
    reads = prompt * output + output * output / 2
    return reads * (kv_width * layers * BYTES_PER_CHANNEL) / bandwidth


def paper_density(compute_seconds: float, memory_seconds: float, sharing: float = 0.0) -> float:
    """rho = (1 - s) Comp / Mem of a request, or of sums over a set of them (docs/paper.md#the-resource-aware-tree)."""
    return (1 - sharing) * compute_seconds / memory_seconds


def memory_split(memory: float, left: float, right: float, root: float) -> tuple[float, float]:
    """(M_L, M_R): the shares of `memory` of the dual scan's two sides, from their densities.

    docs/paper.md#the-dual-scan.
    Meant for right < root < left; nothing is clamped. Raises ZeroDivisionError for equal densities.
    """
    span = left - right
    return memory * (root - right) / span, memory * (left - root) / span


def resident_requests(memory: float, prompt: float, output: float, kv_width: int, layers: int) -> float:
    """N = M / ((p + d / 2) H_kv L 4): decoding requests that `memory` bytes hold.

    docs/paper.md#a-full-batch-is-as-dense-as-its-requests.
    """
    return memory / ((prompt + output / 2) * kv_width * layers * BYTES_PER_CHANNEL)


def admitted_tokens(requests: float, prompt: float, output: float) -> float:
    """C = N p / d: prompt tokens admitted per step in the steady state.

    docs/paper.md#a-full-batch-is-as-dense-as-its-requests.
    """
    return requests * prompt / output


def batch_density(
    kv_memory: float,
    prompt: float,
    output: float,
    parameters: float,
    kv_width: int,
    layers: int,
    flops: float,
    bandwidth: float,
) -> float:
    """rho(B) of a full decode batch of equal requests, which is rho(r) of one of them.

    docs/paper.md#a-full-batch-is-as-dense-as-its-requests.
    """
    decoding = resident_requests(kv_memory, prompt, output, kv_width, layers)
    tokens = decoding + admitted_tokens(decoding, prompt, output)
    return (tokens * 2 * parameters / flops) / (kv_memory / bandwidth)


def step_tokens_by_rates(root: float, memory: float, parameters: float, flops: float, bandwidth: float) -> float:
    """T* = rho_t M compute / (2 P bandwidth): the dual scan's tokens per step, by the machine's rates.

    docs/paper.md#the-step-budget.
    """
    return root * memory * flops / (2 * parameters * bandwidth)


def step_tokens_by_totals(memory: float, compute_tokens: float, kv_bytes: float) -> float:
    """T* = M * (tokens to compute) / (KV bytes to read), both over the whole job: the rates cancel.

    docs/paper.md#the-step-budget.
    """
    return memory * compute_tokens / kv_bytes
