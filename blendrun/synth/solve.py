"""How many requests of each kind: the mix solver, run on the lengths that were really drawn."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.cost.base import Machine
from blendrun.cost.mix import Mix, TraceCost, solve_mix
from blendrun.models.card import ModelCard
from blendrun.synth.draw import Drawn, draw, kv_bytes
from blendrun.synth.recipe import Recipe, UnreachableError

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


def solve(recipe: Recipe, model: ModelCard, peak: Machine) -> Solved:
    """Draw as many requests of each kind as make the recipe's density and sharing.

    The solver needs means, and the means of what is drawn depend on how many are: both are repeated until they agree.
    Raises UnreachableError where no such mix exists, or none of so few requests.
    """
    pools = [draw(kind, recipe.requests, recipe.seed) for kind in recipe.kinds]
    counts = (recipe.requests // 2, recipe.requests // 2, max(recipe.requests // 100, 1))
    mix = None
    for _ in range(_ROUNDS):
        drawn = [pool.first(max(count, 1)) for pool, count in zip(pools, counts, strict=True)]
        mix = _mix(recipe, drawn, counts, model, peak)
        memory = round(mix.memory * recipe.requests)
        sharing = round(mix.sharing * recipe.requests)
        found = (recipe.requests - memory - sharing, sharing, memory)
        if found == counts:
            break
        counts = found
    if mix is None or min(counts[0], counts[2]) < 1:
        raise _too_few(recipe, mix)
    first, second, third = (pool.first(count) for pool, count in zip(pools, counts, strict=True))
    return Solved((first, second, third), _stretch(recipe, (first, second, third), mix, model, peak))


def _mix(recipe: Recipe, drawn: list[Drawn], counts: tuple[int, int, int], model: ModelCard, peak: Machine) -> Mix:
    """The share of each kind among all requests."""
    compute, sharing, memory = (_cost(each, model, peak) for each in drawn)
    # The solver leaves the third kind out of the sharing; what it adds and shares is put on the other two.
    others = compute.prompt * counts[0] + sharing.prompt * counts[1]
    lack = (recipe.sharing * memory.prompt - memory.shared) * counts[2]
    try:
        mix = solve_mix(
            compute,
            sharing,
            memory,
            requests=1.0,
            density=recipe.rho,
            shared=recipe.sharing + lack / max(others, 1.0),
        )
    except ValueError as error:
        raise _unreachable(recipe, compute, sharing, memory) from error
    total = mix.compute + mix.sharing + mix.memory
    return Mix(mix.compute / total, mix.sharing / total, mix.memory / total)


def _cost(drawn: Drawn, model: ModelCard, peak: Machine) -> TraceCost:
    count = len(drawn.prompt)
    return TraceCost(
        prompt=drawn.tokens / count,
        shared=drawn.saved / count,
        compute=_compute_seconds(drawn, model, peak) / count,
        memory=kv_bytes(drawn, model, peak.value_bytes) / peak.bandwidth / count,
    )


def _compute_seconds(drawn: Drawn, model: ModelCard, peak: Machine, stretch: float = 1.0) -> float:
    """The paper's Comp without its attention term (1.2), less what is shared, of all requests."""
    tokens = drawn.tokens - drawn.saved + int(drawn.output.sum()) * stretch
    return 2 * model.parameters_active * tokens / peak.flops


def _stretch(recipe: Recipe, drawn: tuple[Drawn, Drawn, Drawn], mix: Mix, model: ModelCard, peak: Machine) -> float:
    """The factor on the answers of the memory-heavy kind that makes the density exact. Raises UnreachableError."""
    first, second, third = drawn
    compute = _compute_seconds(first, model, peak) + _compute_seconds(second, model, peak)
    reads = sum(kv_bytes(each, model, peak.value_bytes) for each in (first, second)) / peak.bandwidth

    def excess(stretch: float) -> float:
        """Density above the wanted one; it falls as answers grow."""
        memory = reads + kv_bytes(third, model, peak.value_bytes, stretch) / peak.bandwidth
        return (compute + _compute_seconds(third, model, peak, stretch)) / memory - recipe.rho

    low, high = 1 / _STRETCH, _STRETCH
    if not excess(low) >= 0 >= excess(high):
        raise _too_few(recipe, mix)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _too_few(recipe: Recipe, mix: Mix | None) -> UnreachableError:
    share = mix.memory if mix else 0.0
    needed = f"; ask for {_round_up(4 / share):,} or more" if share > 0 else ""
    return UnreachableError(
        f"--rho {recipe.rho:g} takes {share * recipe.requests:.2g} {recipe.memory.name} requests among "
        f"{recipe.requests:,}, too few to meet it{needed}"
    )


def _round_up(count: float) -> int:
    """To two digits."""
    step = int(10 ** max(len(str(int(count))) - 2, 0))
    return -(-int(count + 1) // step) * step


def _unreachable(recipe: Recipe, compute: TraceCost, sharing: TraceCost, memory: TraceCost) -> UnreachableError:
    names = f"{recipe.compute.name}, {recipe.share.name} and {recipe.memory.name}"
    least, most = compute.shared / compute.prompt, sharing.shared / sharing.prompt
    if not least <= recipe.sharing <= most:
        return UnreachableError(
            f"--sharing {recipe.sharing:g} is out of reach of {recipe.requests:,} requests of {names}: "
            f"give {least:.3f} to {most:.3f}, or ask for more requests, which share more"
        )
    low = memory.compute / memory.memory
    high = (compute.compute + sharing.compute) / (compute.memory + sharing.memory)
    return UnreachableError(
        f"--rho {recipe.rho:g} is out of reach of {names} with sharing {recipe.sharing:g}: it must be above {low:.2f} "
        f"({recipe.memory.name} alone) and below what the other two have, about {high:.0f}"
    )
