"""Small jobs to simulate: few tokens, much sharing, tight pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.blend.blended import Blender
from blendrun.blend.budget import AdaptiveBudget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.blend.orders import simple_order
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.lengths.base import Lengths
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import EXACT, Drafts, Eviction, HostCache, SimulatedEngine, StepTime
from blendrun.tokens.base import Parts, Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree

MODEL, MACHINE = load_card("llama-3-8b"), machine(load_hardware("a100-80g"))
STEP = StepTime(
    prefill_token=1e-3,
    decode_token=1.25e-3,
    prefill_square=1e-6,
    kv_token=2e-4,
    weights=4e-3,
    row=1e-4,
    step=5e-4,
    request=3e-4,
)
SPARSE = replace(STEP, experts=3e-3, expert_miss=0.5)
# Mixing costs decode attention half as much again.
NARROW = replace(STEP, mixed=0.5)


@dataclass(frozen=True, eq=False)
class Job:
    prompts: Prompts
    tree: PrefixTree
    outputs: NDArray[np.int64]
    lengths: Lengths

    @property
    def rows(self) -> NDArray[np.int32]:
        """Answers of each prompt: its choices, or its parts where these are more."""
        parts, choices = self.prompts.parts, self.prompts.choices
        return choices if parts is None else np.maximum(choices, parts.count)

    def order(self, name: OrderName) -> Order:
        return simple_order(name, self.prompts, self.tree, self.lengths)

    def blend(self, pool: int, keep: float = 0.99, *, scattered: bool = False) -> Blend:
        asked = demand(self.tree, self.prompts, self.lengths, MODEL, MACHINE)
        blender = Blender(self.tree, self.prompts, self.lengths, asked, MACHINE, pool_tokens=pool)
        return blender.blend(keep=keep, scattered=scattered)


def job_of(
    units: Sequence[Sequence[int]],
    outputs: Sequence[int],
    choices: Sequence[int] | None = None,
    parts: Sequence[tuple[int, int, int]] | None = None,
) -> Job:
    """parts: count, first and common of each prompt, as `Parts` has them."""
    count = len(units)
    lengths = [len(each) for each in units]
    answer = np.array(outputs, dtype=np.int32)
    prompts = Prompts(
        row=np.arange(count, dtype=np.int64),
        units=np.array([unit for each in units for unit in each], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        unit_tokens=1,
        prompt_tokens=np.array(lengths, dtype=np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=answer,
        choices=np.array(choices or [1] * count, dtype=np.int32),
        reference=answer,
        known=np.ones(count, dtype=np.bool_),
        parts=None if parts is None else Parts(*np.array(parts, dtype=np.int32).T.copy()),
    )
    mean = answer.astype(np.float64)
    known = Lengths(mean, mean**2, answer, np.zeros(count, dtype=np.uint8))
    return Job(prompts, build_tree(prompts), answer.astype(np.int64), known)


@st.composite
def jobs(draw: Any, most: int = 14) -> Job:
    """Prompts of one to nine tokens out of three, so that copies, chains and prompts within prompts abound."""
    units = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=most))
    outputs = draw(st.lists(st.integers(0, 12), min_size=len(units), max_size=len(units)))
    choices = draw(st.lists(st.sampled_from((1, 1, 1, 2, 3)), min_size=len(units), max_size=len(units)))
    parts = [draw(parts_of(len(each))) for each in units] if draw(st.booleans()) else None
    return job_of(units, outputs, choices, parts)


@st.composite
def parts_of(draw: Any, tokens: int) -> tuple[int, int, int]:
    """Of a prompt of so many tokens: one request, or as often several."""
    count = draw(st.sampled_from((1, 1, 2, 3)))
    if count == 1:
        return 1, 0, 0
    first = draw(st.integers(1, tokens))
    return count, first, draw(st.integers(0, first))


constant_budgets = st.integers(1, 12).map(ConstantBudget)
adaptive_budgets = st.builds(
    AdaptiveBudget,
    floor=st.integers(1, 6),
    most=st.integers(1, 20),
    ratio=st.sampled_from((0.0, 0.5, 1.0, 3.0)),
    weight_tokens=st.just(4.0),
    row_tokens=st.just(1.25),
    cached_tokens=st.just(0.2),
)
turns_budgets = st.builds(TurnsBudget, tokens=st.integers(1, 12), drained=st.sampled_from((0.0, 0.5, 0.8, 1.0)))
crossover_budgets = st.builds(
    CrossoverBudget,
    tokens=st.integers(1, 12),
    alone=st.integers(1, 20),
    mixed=st.sampled_from((0.0, 0.5, 3.0)),
    weight_tokens=st.just(4.0),
    row_tokens=st.just(1.25),
    cached_tokens=st.just(0.2),
)


@st.composite
def engines(draw: Any) -> SimulatedEngine:
    overlap = draw(st.sampled_from(Overlap))
    both = st.one_of(constant_budgets, adaptive_budgets, turns_budgets, crossover_budgets)
    alone = st.one_of(constant_budgets, turns_budgets)
    return SimulatedEngine(
        pool_tokens=draw(st.integers(4, 60)),
        overlap=overlap,
        budget=draw(alone if overlap is Overlap.EXCLUSIVE else both),
        max_running=draw(st.sampled_from((1 << 30, 1 << 30, 4))),
        gate=draw(st.booleans()),
        gate_tokens=draw(st.integers(1, 12)),
        reserve=draw(st.sampled_from((EXACT, 0.0, 0.3, 1.0))),
        eviction=draw(st.sampled_from(Eviction)),
        clip=draw(st.sampled_from((3, 1 << 30))),
        late=draw(st.booleans()),
        refresh=draw(st.sampled_from((0, 2))),
        paced=draw(st.booleans()),
        shared_reads=draw(st.sampled_from((None, 1, 3))),
        drafts=draw(st.sampled_from((None, Drafts(3, 0.6, rows=4), Drafts(2, 1.0)))),
        host=draw(st.sampled_from((None, HostCache(5, 1e-4), HostCache(100, 1e-4)))),
    )
