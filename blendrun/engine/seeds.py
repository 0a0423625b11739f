"""Make a request's `seed` reproduce its answer, on SGLang's `pytorch` sampling backend.

SGLang uses per-request seeds only under deterministic inference, which wants GPU attention backends. The sampler itself
can do it anywhere: it takes one seed a row. These hooks fill that column as soon as a row of a batch carries a seed,
and keep it whole when batches are merged. A batch without seeds runs SGLang's code unchanged.

The draw itself is replaced too: SGLang's wants a compiled hash of its GPU kernel package. Here a row's token is drawn
with a generator seeded by (request seed, position), so it depends on nothing else in the batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from blendrun.engine.settings import CPU_PLATFORM
from blendrun.engine.sglang_names import BATCH_INFO, MERGE_BATCH_INFO, SAMPLE, SEEDED_DRAW, is_there

# Marks a row without a seed in a batch that has some.
_UNSEEDED = -1


def register() -> None:
    """Entry point of group `sglang.srt.plugins`. Does nothing unless blendrun's CPU platform is selected.

    Hooks in all or nothing: with a part of it seeds would not be honoured, or end the scheduler.
    """
    if os.environ.get("SGLANG_PLATFORM") != CPU_PLATFORM or not can_be_honoured():
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(BATCH_INFO, fill_seeds, HookType.AFTER)
    HookRegistry.register(MERGE_BATCH_INFO, level_seeds, HookType.BEFORE)
    HookRegistry.register(SAMPLE, sample_min_p, HookType.AROUND)
    HookRegistry.register(SEEDED_DRAW, draw, HookType.REPLACE)


def can_be_honoured() -> bool:
    """Whether everything that is hooked here is there."""
    return all(map(is_there, (BATCH_INFO, MERGE_BATCH_INFO, SAMPLE, SEEDED_DRAW)))


def fill_seeds(info: Any, *args: Any, **kwargs: Any) -> Any:
    """A seed column for the batch if any of its rows has a seed."""
    batch = next(value for value in (*args, *kwargs.values()) if hasattr(value, "reqs"))
    seeds = [request.sampling_params.sampling_seed for request in batch.reqs]
    if info.sampling_seed is None and any(seed is not None for seed in seeds):
        known = [_UNSEEDED if seed is None else seed & 0x7FFF_FFFF_FFFF_FFFF for seed in seeds]
        info.sampling_seed = torch.tensor(known, dtype=torch.int64, device=info.temperatures.device)
    return info


def level_seeds(info: Any, other: Any) -> None:
    """Before two batches merge: both or neither have the column (SGLang would drop it, or leave it too short)."""
    for one, peer in ((info, other), (other, info)):
        if one.sampling_seed is None and peer.sampling_seed is not None:
            one.sampling_seed = torch.full_like(one.temperatures.flatten(), _UNSEEDED, dtype=torch.int64)


def sample_min_p(
    original: Callable[..., Any],
    probs: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
    min_ps: torch.Tensor,
    need_min_p_sampling: bool,
    sampling_seed: torch.Tensor | None,
    positions: torch.Tensor,
    **kwargs: Any,
) -> Any:
    """min-p beside seeds, which SGLang refuses by an assertion that ends the scheduler.

    What min-p removes is the tail of the sorted probabilities, so removing it before top-k and top-p leaves the same
    tokens with the same weights. probs: (rows, vocabulary).
    """
    if need_min_p_sampling and sampling_seed is not None:
        floor = probs.amax(dim=-1) * min_ps
        probs = probs.masked_fill(probs < floor.unsqueeze(-1), 0.0)
        need_min_p_sampling = False
    return original(probs, top_ks, top_ps, min_ps, need_min_p_sampling, sampling_seed, positions, **kwargs)


def draw(logprobs: torch.Tensor, seed: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One token a row from unnormalised log-probabilities (rows, vocabulary); int64 (rows, 1).

    A seeded row takes the smallest of exponential variates over its weights, which is a draw from them.
    """
    weights = (logprobs - logprobs.amax(dim=-1, keepdim=True)).exp()
    tokens = torch.multinomial(weights, num_samples=1)
    for row, (request_seed, position) in enumerate(zip(seed.tolist(), positions.tolist(), strict=True)):
        if request_seed == _UNSEEDED:
            continue
        generator = torch.Generator(device=weights.device)
        generator.manual_seed(hash((request_seed, position)) & 0x7FFF_FFFF_FFFF_FFFF)
        waiting = torch.empty_like(weights[row]).exponential_(generator=generator)
        tokens[row] = (waiting / weights[row]).argmin()
    return tokens
