"""Jobs for the blend's tests: prompts as lists of ids, output lengths known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from blendrun.blend.base import Blend
from blendrun.blend.blended import Blender
from blendrun.cost.base import Demand, Machine
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.lengths.base import Lengths
from blendrun.models.cards import load_card
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree

MODEL = load_card("llama-3-8b")
MACHINE = machine(load_hardware("a100-80g"))


@dataclass(frozen=True, slots=True, eq=False)
class Small:
    """A job whose answers' lengths are known."""

    prompts: Prompts
    tree: PrefixTree
    lengths: Lengths
    demand: Demand
    machine: Machine = MACHINE

    def blend(self, *, pool_tokens: float = 10_000, keep: float = 0.99, scattered: bool = False) -> Blend:
        blender = Blender(self.tree, self.prompts, self.lengths, self.demand, self.machine, pool_tokens=pool_tokens)
        return blender.blend(keep=keep, scattered=scattered)


def small_job(units: Sequence[Sequence[int]], outputs: Sequence[int], choices: Sequence[int] | None = None) -> Small:
    count = len(units)
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in units]))).astype(np.int64)
    flat = np.array([unit for each in units for unit in each], dtype=np.int32)
    known = np.array(outputs, dtype=np.int32)
    prompts = Prompts(
        row=np.arange(count, dtype=np.int64),
        units=flat,
        offsets=offsets,
        unit_tokens=1,
        prompt_tokens=np.diff(offsets).astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=known,
        choices=np.array(choices or [1] * count, dtype=np.int32),
        reference=known,
        known=np.ones(count, dtype=np.bool_),
    )
    tree = build_tree(prompts)
    mean = known.astype(np.float64)
    lengths = Lengths(mean, mean**2, known, np.zeros(count, dtype=np.uint8))
    return Small(prompts, tree, lengths, demand(tree, prompts, lengths, MODEL, MACHINE))


_prompt = st.builds(
    lambda head, tail: [7] * head[0] + [8] * head[1] + tail,
    st.tuples(st.integers(0, 30), st.integers(0, 30)),
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
)


@st.composite
def small_jobs(draw: st.DrawFn) -> Small:
    """Shared heads, odd tails, outputs from nothing to long."""
    units = draw(st.lists(_prompt, min_size=1, max_size=30))
    count = len(units)
    lengths = st.lists(st.one_of(st.integers(0, 3), st.integers(4, 3000)), min_size=count, max_size=count)
    choices = st.lists(st.integers(1, 3), min_size=count, max_size=count)
    return small_job(units, draw(lengths), draw(choices))
