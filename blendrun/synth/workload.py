"""A drawn mix as prompts, in random order, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.cost.base import Demand, Machine
from blendrun.cost.formulas import demand
from blendrun.jobs.trace_line import parse_trace_line
from blendrun.lengths.base import Lengths, LengthSource
from blendrun.models.card import ModelCard
from blendrun.synth.draw import stretched
from blendrun.synth.kinds import BLOCK
from blendrun.synth.recipe import RHO_TOLERANCE, SHARING_TOLERANCE, Recipe, UnreachableError
from blendrun.synth.solve import Solved, solve
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Synthesis:
    """A workload of M requests, with its tree.

    prompts: a prompt's units are the blocks of its prefix and the first block of its own; the others, which nobody
        shares, are left out, as they change nothing in the tree. A file has them all.
    kind: u8 (M,), index into `recipe.kinds`. group: i64 (M,), of its kind.
    own: i64 (M,), id of the first block of each prompt's own; its others follow.
    rho, sharing: what the workload really has, by its tree. stretch: factor on the memory-heavy answers, near 1.
    """

    recipe: Recipe
    prompts: Prompts
    kind: NDArray[np.uint8]
    group: NDArray[np.int64]
    own: NDArray[np.int64]
    tree: PrefixTree
    rho: float
    sharing: float
    stretch: float

    @property
    def counts(self) -> dict[str, int]:
        """Requests of each kind."""
        counts = np.bincount(self.kind, minlength=3).tolist()
        return {kind.name: count for kind, count in zip(self.recipe.kinds, counts, strict=True)}


def synthesise(recipe: Recipe, model: ModelCard, peak: Machine) -> Synthesis:
    """Make the workload for a model and a machine at its peak rates (docs/paper.md#peak-and-achieved-rates).

    Takes 1 to 3 s and up to 0.7 GB for 400,000 requests. Raises UnreachableError where the density or the sharing is
    out of reach.
    """
    solved = solve(recipe, model, peak)
    kind, group, prompt, output = _columns(solved, recipe.seed)
    heads = prefix_blocks(recipe)
    prefix = np.array([each.prefix for each in recipe.kinds])[kind] // BLOCK
    blocks = -(-prompt // BLOCK) - prefix
    own = sum(each.head_blocks for each in recipe.kinds) + np.cumsum(blocks) - blocks
    prompts = _prompts(recipe, kind, group, prompt, output, own, heads)
    tree = build_tree(prompts)
    rho = paper_rho(demand(tree, prompts, known_lengths(prompts), model, peak), model, peak)
    sharing = tree.shared_tokens / tree.prompt_tokens
    made = Synthesis(recipe, prompts, kind, group, own, tree, rho, sharing, solved.stretch)
    _check(made)
    return made


def paper_rho(asked: Demand, model: ModelCard, peak: Machine) -> float:
    """rho as the paper counts it: (1 - s) Comp / Mem, sums over the job, attention's arithmetic left out.

    docs/paper.md#densities-of-the-traces.
    peak: the machine at peak rates. A plan's own density differs: it takes achieved rates and corrected formulas.
    Infinite where nothing is decoded.
    """
    compute = 2 * model.parameters_active * float(asked.compute_tokens.sum()) / peak.flops
    memory = float(asked.kv_bytes.sum()) / peak.bandwidth
    return compute / memory if memory > 0 else float("inf")


def known_lengths(prompts: Prompts) -> Lengths:
    """Answer lengths that are facts."""
    mean = prompts.reference.astype(np.float64)
    return Lengths(mean, mean**2, prompts.bound, np.full(len(prompts), LengthSource.KNOWN, dtype=np.uint8))


def prefix_blocks(recipe: Recipe) -> list[NDArray[np.int32]]:
    """Block ids of the prefixes of each kind: i32 (groups, prefix blocks), numbered from 0 through all kinds."""
    heads, begin = [], 0
    for kind in recipe.kinds:
        system, rest = kind.system // BLOCK, (kind.prefix - kind.system) // BLOCK
        shared = np.broadcast_to(np.arange(begin, begin + system), (kind.groups, system))
        own = begin + system + np.arange(kind.groups * rest).reshape(kind.groups, rest)
        heads.append(np.concatenate((shared, own), axis=1).astype(np.int32))
        begin += kind.head_blocks
    return heads


def _columns(
    solved: Solved, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Kind, group, prompt and output tokens of all requests, in random order."""
    first, second, third = solved.drawn
    kind = np.repeat(np.arange(3, dtype=np.uint8), [len(each.prompt) for each in solved.drawn])
    place = np.random.default_rng([seed, len(kind)]).permutation(len(kind))
    group = np.concatenate([each.group for each in solved.drawn])
    prompt = np.concatenate([each.prompt for each in solved.drawn])
    output = np.concatenate((first.output, second.output, stretched(third.output, solved.stretch)))
    return kind[place], group[place], prompt[place], output[place]


def _prompts(
    recipe: Recipe,
    kind: NDArray[np.uint8],
    group: NDArray[np.int64],
    prompt: NDArray[np.int64],
    output: NDArray[np.int64],
    own: NDArray[np.int64],
    heads: list[NDArray[np.int32]],
) -> Prompts:
    count = len(kind)
    length = np.array([each.shape[1] for each in heads], dtype=np.int64)[kind] + 1
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(length)))
    units = np.empty(int(offsets[-1]), dtype=np.int32)
    units[offsets[1:] - 1] = own
    for number, blocks in enumerate(heads):
        rows = np.flatnonzero(kind == number)
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[begin : begin + _ROWS_AT_ONCE]
            units[offsets[some][:, None] + np.arange(blocks.shape[1])] = blocks[group[some]]
    answer = output.astype(np.int32)
    return Prompts(
        row=np.arange(count, dtype=np.int64),
        units=units,
        offsets=offsets,
        unit_tokens=BLOCK,
        prompt_tokens=prompt.astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=np.array([_cluster(each.name) for each in recipe.kinds], dtype=np.uint64)[kind],
        bound=answer,
        choices=np.ones(count, dtype=np.int32),
        reference=answer,
        known=np.ones(count, dtype=np.bool_),
    )


def _cluster(service: str) -> int:
    """As a reader of the file has it."""
    return parse_trace_line(orjson.dumps({"prompt_tokens": 1, "output_tokens": 1, "service": service})).cluster


def _check(made: Synthesis) -> None:
    recipe = made.recipe
    if abs(made.rho / recipe.rho - 1) > RHO_TOLERANCE:
        raise UnreachableError(
            f"--rho {recipe.rho:g} is not reachable with {recipe.requests:,} requests: they come to {made.rho:.3f}; "
            "ask for more of them"
        )
    if abs(made.sharing - recipe.sharing) > SHARING_TOLERANCE:
        raise UnreachableError(
            f"--sharing {recipe.sharing:g} is not reachable with {recipe.requests:,} requests: they come to "
            f"{made.sharing:.3f}; ask for more of them"
        )
