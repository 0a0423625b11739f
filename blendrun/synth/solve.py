"""How many requests of each kind: counted out on the lengths that were really drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.base import Machine
from blendrun.models.card import ModelCard
from blendrun.synth.draw import Drawn, draw, kv_bytes
from blendrun.synth.recipe import SHARING_TOLERANCE, Recipe, UnreachableError

_ROUNDS = 20
# Whole requests of the memory-heavy kind miss the density by up to half a request; their answers are stretched to make
# up for it, by no more than this.
_STRETCH = 1.2
_BISECTIONS = 40


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """The requests of each kind, in the order of `Recipe.kinds`, and the factor on the answers of the last one."""

    drawn: tuple[Drawn, Drawn, Drawn]
    stretch: float


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """What the first 0, 1, 2, ... N requests of a kind come to, all (N + 1,).

    prompt, saved: i64, prompt tokens, and those that a cache saves. compute, memory: f64, seconds: the paper's Comp
    without its attention term and less what is shared, and its Mem (docs/paper.md#cost-of-a-request).
    """

    prompt: NDArray[np.int64]
    saved: NDArray[np.int64]
    compute: NDArray[np.float64]
    memory: NDArray[np.float64]

    @classmethod
    def of(cls, drawn: Drawn, model: ModelCard, peak: Machine) -> _Sums:
        prompt, saved, output = _from_none(drawn.prompt), _from_none(drawn.saved), _from_none(drawn.output)
        seconds = 2.0 * model.parameters_active / peak.flops
        reads = _from_none(kv_bytes(drawn, model, peak.value_bytes))
        return cls(prompt, saved, seconds * (prompt - saved + output), reads / peak.bandwidth)


def solve(recipe: Recipe, model: ModelCard, peak: Machine) -> Solved:
    """Draw as many requests of each kind as make the recipe's density and sharing.

    For every number of sharing requests the sharing is known, and for every number of memory-heavy ones the density:
    the nearest are taken by turns until neither changes; compute-heavy requests are the rest.
    Raises UnreachableError where no such mix exists, or none of so few requests.
    """
    if recipe.requests < 2:
        raise UnreachableError(f"--requests {recipe.requests}: a mix takes several; ask for 1,000 or more")
    pools = [draw(kind, recipe.requests, recipe.seed) for kind in recipe.kinds]
    sums = [_Sums.of(pool, model, peak) for pool in pools]
    sharing, memory = 0, 1
    for _ in range(_ROUNDS):
        found = _sharing_count(recipe, sums, memory)
        then = _memory_count(recipe, sums, found)
        if (found, then) == (sharing, memory):
            break
        sharing, memory = found, then
    counts = (recipe.requests - sharing - memory, sharing, memory)
    first, second, third = (pool.first(count) for pool, count in zip(pools, counts, strict=True))
    compute = float(sums[0].compute[counts[0]] + sums[1].compute[counts[1]])
    reads = float(sums[0].memory[counts[0]] + sums[1].memory[counts[1]])
    return Solved((first, second, third), _stretch(recipe, third, compute, reads, model, peak))


def _sharing_count(recipe: Recipe, sums: list[_Sums], memory: int) -> int:
    """Sharing requests beside `memory` memory-heavy ones. Raises UnreachableError."""
    first, second, third = sums
    count = np.arange(recipe.requests - memory)
    rest = recipe.requests - memory - count
    saved = first.saved[rest] + second.saved[count] + third.saved[memory]
    sharing = saved / (first.prompt[rest] + second.prompt[count] + third.prompt[memory])
    best = int(np.argmin(np.abs(sharing - recipe.sharing)))
    if abs(sharing[best] - recipe.sharing) > SHARING_TOLERANCE:
        names = f"{recipe.compute.name}, {recipe.share.name} and {recipe.memory.name}"
        raise UnreachableError(
            f"--sharing {recipe.sharing:g} is out of reach of {recipe.requests:,} requests of {names}: give "
            f"{sharing.min():.3f} to {sharing.max():.3f}, or ask for more requests, which share more"
        )
    return best


def _memory_count(recipe: Recipe, sums: list[_Sums], sharing: int) -> int:
    """Memory-heavy requests beside `sharing` sharing ones, at least 1. Raises UnreachableError."""
    first, second, third = sums
    count = np.arange(1, recipe.requests - sharing)
    rest = recipe.requests - sharing - count
    compute = first.compute[rest] + second.compute[sharing] + third.compute[count]
    density = compute / (first.memory[rest] + second.memory[sharing] + third.memory[count])
    alone = third.compute[-1] / third.memory[-1]
    others = (first.compute[rest[0]] + second.compute[sharing]) / (first.memory[rest[0]] + second.memory[sharing])
    if not alone < recipe.rho < others:
        names = f"{recipe.compute.name}, {recipe.share.name} and {recipe.memory.name}"
        raise UnreachableError(
            f"--rho {recipe.rho:g} is out of reach of {names} with sharing {recipe.sharing:g}: it must be above "
            f"{alone:.2f} ({recipe.memory.name} alone) and below what the other two have, about {others:.0f}"
        )
    return int(count[np.argmin(np.abs(np.log(density / recipe.rho)))])


def _stretch(recipe: Recipe, third: Drawn, compute: float, reads: float, model: ModelCard, peak: Machine) -> float:
    """The factor on the answers of the memory-heavy kind that makes the density exact. Raises UnreachableError.

    compute, reads: seconds of compute and of memory of the other two kinds.
    """
    uncached = third.tokens - int(third.saved.sum())

    def seconds(stretch: float) -> tuple[float, float]:
        tokens = uncached + float(third.output.sum()) * stretch
        memory = float(kv_bytes(third, model, peak.value_bytes, stretch).sum()) / peak.bandwidth
        return 2 * model.parameters_active * tokens / peak.flops, memory

    def excess(stretch: float) -> float:
        """Density above the wanted one; it falls as answers grow."""
        more_compute, more_reads = seconds(stretch)
        return (compute + more_compute) / (reads + more_reads) - recipe.rho

    low, high = 1 / _STRETCH, _STRETCH
    if not excess(low) >= 0 >= excess(high):
        of_each = [each / len(third.prompt) for each in seconds(1.0)]
        raise _too_few(recipe, (compute - recipe.rho * reads) / (recipe.rho * of_each[1] - of_each[0]))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _too_few(recipe: Recipe, wanted: float) -> UnreachableError:
    """wanted: memory-heavy requests that would be right, a fraction."""
    return UnreachableError(
        f"--rho {recipe.rho:g} takes {wanted:.2g} {recipe.memory.name} requests among {recipe.requests:,}, too few to "
        f"meet it; ask for {_round_up(4 * recipe.requests / wanted):,} or more"
    )


def _round_up(count: float) -> int:
    """To two digits."""
    step = int(10 ** max(len(str(int(count))) - 2, 0))
    return -(-int(count + 1) // step) * step


def _from_none(each: NDArray[Any]) -> NDArray[Any]:
    """Running sums, from that of nothing on."""
    return np.concatenate((np.zeros(1, each.dtype), np.cumsum(each)))
