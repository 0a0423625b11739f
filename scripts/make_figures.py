"""Figures of docs/method.md, from the planner and the simulator: python scripts/make_figures.py docs/figures"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from blendrun.blend.base import LEFT
from blendrun.blend.budget import AdaptiveBudget
from blendrun.cost.hardware import load_hardware, machine
from blendrun.lengths.base import Lengths
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.planner.plan import Choice, Costed, Structure, cost_structure, make_plan
from blendrun.simulate.portfolio import Candidate
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree

_COMPUTE, _MEMORY = "#0072B2", "#E69F00"
# (groups, requests of each, shared prompt tokens, own prompt tokens, output tokens), in the order of the file.
_KINDS = ((100, 10, 1000, 900, 8), (1000, 1, 0, 1600, 12), (1000, 1, 0, 60, 2200))


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    costed = _job()
    plan = make_plan(costed, Choice((OrderName.GIVEN, OrderName.BLENDED), (Overlap.MIXED,)))
    # One file whenever it is made.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "blendrun", "font.size": 10}):
        _save(_balance(plan.portfolio.candidates), folder / "balance.svg")
        _save(_row(costed), folder / "row.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def _job() -> Costed:
    prompts, rng, unit = [], np.random.default_rng(0), 1
    outputs = []
    for groups, each, shared, own, answer in _KINDS:
        for _ in range(groups):
            head, unit = [unit], unit + 1
            for _ in range(each):
                # A unit stands for 20 tokens.
                prompts.append(head * (shared // 20) + [unit] * (own // 20))
                unit += 1
                outputs.append(max(int(rng.lognormal(np.log(answer), 0.4)), 1))
    known = np.array(outputs, dtype=np.int32)
    count = len(prompts)
    lengths = np.array([len(each) for each in prompts])
    made = Prompts(
        row=np.arange(count),
        units=np.concatenate(prompts).astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        unit_tokens=20,
        prompt_tokens=(lengths * 20).astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=known,
        choices=np.ones(count, dtype=np.int32),
        reference=known,
        known=np.ones(count, dtype=np.bool_),
    )
    mean = known.astype(np.float64)
    structure = Structure(made, build_tree(made), Lengths(mean, mean**2, known, np.zeros(count, dtype=np.uint8)))
    return cost_structure(structure, load_card("llama-3-8b"), machine(load_hardware("a100-80g")))


def _balance(candidates: Any) -> Figure:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    rows = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(rows, ("given", "blended"), strict=True):
        found: Candidate = min((each for each in candidates if each.order == name), key=lambda each: each.seconds)
        line = found.outcome.timeline
        at = np.concatenate(([0.0], np.cumsum(line.seconds)))
        for each, colour, label in (
            (line.compute, _COMPUTE, "arithmetic"),
            (line.memory, _MEMORY, "KV and weight reads"),
        ):
            axes.stairs(_smooth(each / line.seconds), at, color=colour, fill=False, linewidth=1.6, label=label)
        title = "as in the file" if name == "given" else "blended"
        budget = "adaptive" if isinstance(found.budget, AdaptiveBudget) else f"{found.budget.tokens} tokens"
        axes.set_title(f"{title}: {found.seconds:,.0f} s (step budget {budget})", fontsize=10, loc="left")
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("share of each second")
        axes.spines[["top", "right"]].set_visible(False)
    rows[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    rows[1].set_xlabel("seconds")
    return figure


def _smooth(values: NDArray[np.float64], width: int = 9) -> NDArray[np.float64]:
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid").astype(np.float64)


def _row(costed: Costed) -> Figure:
    blend = costed.blend
    count = len(blend.row_prompt)
    place = np.empty(count, dtype=np.int64)
    place[blend.row_prompt] = np.arange(count)
    density = np.minimum(blend.row.density[blend.row.unit], 1e4)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.semilogy(np.arange(count), density, color="#444444", linewidth=1.4)
    above.axhline(blend.density, color="#444444", linestyle="--", linewidth=1)
    above.annotate("density of the job", (0, blend.density), xytext=(4, 4), textcoords="offset points", fontsize=9)
    above.set_ylabel("density of the unit")
    for side, colour, label in ((LEFT, _COMPUTE, "from the left end"), (1 - LEFT, _MEMORY, "from the right end")):
        mine = blend.order.side == side
        below.scatter(
            place[blend.order.prompt[mine]], np.flatnonzero(mine), s=2, color=colour, label=label, rasterized=True
        )
    below.set_ylabel("fed as the n-th")
    below.set_xlabel("place in the row: compute-heavy left, memory-heavy right")
    below.legend(frameon=False, markerscale=4, loc="upper center")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
