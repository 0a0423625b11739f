"""Which shard of a job each of its rows belongs to, found out by every shard for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.partition import partition
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import STAND_IN, load_hardware, machine
from blendrun.errors import UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.jobs.job import Job
from blendrun.lengths.estimate import estimate
from blendrun.models.card import ModelCard
from blendrun.models.resolve import ResolvedModel
from blendrun.tokens.base import Prompts
from blendrun.tokens.build import build_prompts
from blendrun.tokens.load import load_engine_tokenizer
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels, needs_compiling
from blendrun.tree.interpreted import interprets
from blendrun.tree.small import run_small


def divide_by_prefix(
    job: Job, shards: int, model: ResolvedModel, arguments: Mapping[str, Any], listener: Listener
) -> NDArray[np.int32]:
    """Shard of each row, 0 to `shards` - 1: i32 (N,). Shards are equal in compute and in memory work, and requests that
    share a prefix stay together (`blend.partition`). arguments: of the engine, of which some decide what prompts are.

    Nothing but these decides: shards that never meet come to the same division, on whatever machine, and whatever
    answers were seen in earlier runs. What is not run (refused lines) stands with the row before it.
    Raises UsageError for a model without dimensions, and what `build_prompts` raises.
    """
    card = model.card
    if card is None:
        raise UsageError(f"{model.name} has no dimensions to divide a job by; use a model with a config.json")
    listener(PhaseStarted("tokenise", f"{model.name}, for all {shards} shards"))
    tokenized = build_prompts(
        job,
        load_engine_tokenizer(model.path, arguments, bidirectional=model.bidirectional),
        context_length=model.context_length or card.context_length,
        listener=listener,
    )
    found = np.full(len(job), -1, dtype=np.int32)
    prompts = tokenized.prompts
    found[prompts.row] = run_small(len(prompts), lambda: _divided(prompts, shards, card, listener))
    return _filled(job, found)


def _divided(prompts: Prompts, shards: int, card: ModelCard, listener: Listener) -> NDArray[np.int32]:
    """Shard of each prompt: i32 (M,)."""
    if not interprets() and needs_compiling():
        listener(PhaseStarted("compile", "the planner's loops, once for this machine"))
        load_kernels()
    listener(PhaseStarted("divide", f"{len(prompts):,} prompts into {shards} shards"))
    tree = build_tree(prompts)
    # Only the proportion of arithmetic and of bytes counts, which is the same on all cards.
    work = demand(tree, prompts, estimate(prompts, tree), card, machine(load_hardware(STAND_IN)))
    return partition(tree, work, shards).part


def divide_by_line(job: Job, shards: int) -> NDArray[np.int32]:
    """The same without a model: consecutive lines, as many to each shard; copies go where the first one goes."""
    own = job.copy_of < 0
    place = np.cumsum(own) - 1
    return _filled(job, (np.maximum(place, 0) * shards // max(int(own.sum()), 1)).astype(np.int32))


def _filled(job: Job, shard: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows without a shard (-1) get that of the row before. A duplicate stands with its first one, which it names, and
    a copy with the one that is asked in its place."""
    known = np.maximum.accumulate(np.where(shard >= 0, np.arange(len(shard)), 0))
    filled: NDArray[np.int32] = np.maximum(shard[known], 0).astype(np.int32)
    copies = job.copy_of >= 0
    filled[copies] = filled[job.copy_of[copies]]
    again = job.duplicate_of >= 0
    filled[again] = filled[job.duplicate_of[again]]
    return filled
