"""Every order simulated on every cell of a grid: workloads by the recipe, or one that the user has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blendrun.cost.base import Machine
from blendrun.cost.hardware import machine
from blendrun.errors import UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.models.card import ModelCard
from blendrun.planner.plan import Choice, Plan, Structure, cost_structure, make_plan
from blendrun.planner.workload import Workload
from blendrun.synth.recipe import Recipe, UnreachableError
from blendrun.synth.workload import known_lengths, paper_rho, synthesise
from blendrun.tree.compiled import load_kernels, needs_compiling


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One workload with its orders simulated.

    rho, sharing: asked for; of a file, what it has. achieved_rho, achieved_sharing: what the workload has: rho as the
    paper counts it, at peak rates. kinds: requests of each kind; empty for a file.
    """

    rho: float
    sharing: float
    achieved_rho: float
    achieved_sharing: float
    kinds: dict[str, int]
    plan: Plan


@dataclass(frozen=True, slots=True)
class UnreachableCell:
    """A cell of a grid that no workload of its kinds reaches."""

    rho: float
    sharing: float
    why: str


def cells_of_recipe(
    recipe: Recipe,
    rhos: Sequence[float],
    sharings: Sequence[float],
    model: ModelCard,
    machines: Sequence[Machine],
    choice: Choice,
    listener: Listener,
) -> tuple[list[Cell], list[UnreachableCell]]:
    """A workload for each pair of density and sharing, by sharing and then density, on a model and on each machine.

    recipe: of all cells, but for its own rho and sharing. One cell out of reach is an error, as are all of a grid; a
    few of a grid are left out and told. Raises UsageError.
    """
    cells, refused = [], []
    _compile(listener)
    grid = [replace(recipe, rho=rho, sharing=sharing) for sharing in sharings for rho in rhos]
    for number, wanted in enumerate(grid, start=1):
        name = f"rho {wanted.rho:g}, sharing {wanted.sharing:g} ({number} of {len(grid)})"
        try:
            cells += _recipe_cells(wanted, model, machines, choice, name, listener)
        except UnreachableError as error:
            refused.append(UnreachableCell(wanted.rho, wanted.sharing, str(error)))
    if not cells:
        raise UsageError(refused[0].why)
    return cells, refused


def cells_of_file(
    workload: Workload,
    structure: Structure,
    machines: Sequence[Machine],
    choice: Choice,
    listener: Listener,
) -> list[Cell]:
    """A job or a trace on each machine. Raises UsageError where model or requests do not fit one."""
    card, tree = workload.model.card, structure.tree
    sharing = tree.shared_tokens / max(tree.prompt_tokens, 1)
    cells = []
    for on in machines:
        listener(PhaseStarted("simulate", f"{len(structure.prompts):,} requests{_on(on, machines)}"))
        plan = make_plan(cost_structure(structure, card, on), choice, listener)
        rho = paper_rho(plan.costed.demand, card, machine(on.card, on.gpus, "peak"))
        cells.append(Cell(rho, sharing, rho, sharing, {}, plan))
    return cells


def _recipe_cells(
    recipe: Recipe,
    model: ModelCard,
    machines: Sequence[Machine],
    choice: Choice,
    name: str,
    listener: Listener,
) -> list[Cell]:
    listener(PhaseStarted("synthesise", name))
    # Both rates grow with the devices: a density is the same on any number of them.
    made = synthesise(recipe, model, machine(machines[0].card, 1, "peak"))
    structure = Structure(made.prompts, made.tree, known_lengths(made.prompts))
    cells = []
    for on in machines:
        listener(PhaseStarted("simulate", f"{name}{_on(on, machines)}"))
        plan = make_plan(cost_structure(structure, model, on), choice, listener)
        cells.append(Cell(recipe.rho, recipe.sharing, made.rho, made.sharing, made.counts, plan))
    return cells


def _on(on: Machine, machines: Sequence[Machine]) -> str:
    return f" on {on.gpus} GPUs" if len(machines) > 1 else ""


def _compile(listener: Listener) -> None:
    if needs_compiling():
        listener(PhaseStarted("compile", "the planner's loops, once for this machine"))
        load_kernels()
