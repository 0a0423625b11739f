"""The plan of a run, as the runner goes by it: a feeder, what the engine is to do, and what was promised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget
from blendrun.database import learns
from blendrun.lengths.base import Lengths
from blendrun.lengths.evidence import Samples
from blendrun.lengths.history import History
from blendrun.names import OrderName, Overlap, Purpose
from blendrun.planner.feeder import Feeder, PlanFeeder
from blendrun.planner.findings import Finding
from blendrun.planner.learner import Learner
from blendrun.planner.plan import (
    Costed,
    Plan,
    Structure,
    cost_structure,
)
from blendrun.simulate.base import EXACT
from blendrun.simulate.portfolio import Candidate
from blendrun.tree.small import run_small

_DEEPEST_QUEUE, _SHALLOWEST_QUEUE = 128, 16
# What a request's way to the engine's queue may take while others are admitted.
_QUEUED_STEPS, _QUEUED_SECONDS, _FULL_STEPS = 4, 0.25, 2
# A pool that differs by less from the planned one divides a blend as well.
_SAME_POOL = 0.03


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run goes by.

    feeder: gives the requests. order, overlap, budget: chosen or asked for; budget None leaves the engine its chunk.
    why: of the choice, a sentence; empty where nothing was chosen.
    planned: whether requests carry what the scheduler plug-in admits and evicts by. reserve: whether it admits by
        expected lengths at every step to come, or as SGLang does.
    predicted_seconds, predicted_hit_tokens: of all that is to be fed; None where nothing was simulated.
    decode_share: part of those seconds that depends on the output tokens. times: what they rest on, a sentence.
    prompt_tokens, output_tokens: of all that is to be fed, the latter expected; None where nothing was tokenised.
    queue_depth: requests that wait in the engine beside those that run: enough that it never starves.
    max_running: answers that a GPU's engine is to allow at once; None where nothing was simulated.
    costed, scattered: what the feeder's order was made of, and which of its two blends that is.
    simulated: all orders that were simulated, with the tree and the time line; None where none was.
    purpose: what the job's lines need the engine for. findings: what of the prompts will go wrong.
    """

    feeder: Feeder
    order: OrderName
    overlap: Overlap = Overlap.EXCLUSIVE
    budget: Budget | None = None
    why: str = ""
    planned: bool = False
    reserve: bool = False
    predicted_seconds: float | None = None
    predicted_hit_tokens: int | None = None
    decode_share: float = 0.5
    times: str = ""
    prompt_tokens: int | None = None
    output_tokens: float | None = None
    queue_depth: int = _DEEPEST_QUEUE
    learning: Learning | None = None
    max_running: int | None = None
    costed: Costed | None = None
    scattered: bool = False
    simulated: Plan | None = None
    purpose: Purpose = Purpose.GENERATE
    findings: tuple[Finding, ...] = ()

    def for_purpose(self, purpose: Purpose) -> RunPlan:
        """The same plan for an engine of that purpose. Where nothing is decoded, prefill has steps of its own."""
        if purpose is Purpose.GENERATE:
            return self
        return replace(self, purpose=purpose, overlap=Overlap.EXCLUSIVE, budget=None, reserve=False)

    def fitted(self, tokens: int) -> Costed | None:
        """What the plan is made of, for the pool that an engine turned out to have; None where nothing depends on it.

        tokens: of the pool, 0 where nobody knows. A pool of nearly the planned size leaves the blend as it is.
        For a thread: nothing is changed here.
        """
        costed = self.costed
        if costed is None or not isinstance(self.feeder, PlanFeeder) or tokens in (0, costed.pool.tokens):
            return None
        found = costed.with_pool(tokens)
        if abs(tokens / costed.pool.tokens - 1) <= _SAME_POOL or self.order is not OrderName.BLENDED:
            return found
        return cost_again(found, found.structure)

    def fit(self, fitted: Costed) -> None:
        """Go by what `fitted` has made, before anything is fed."""
        if isinstance(self.feeder, PlanFeeder) and self.order is OrderName.BLENDED:
            fed = order_to_feed(fitted, self.order, self.scattered)
            self.feeder.fit_pool(fitted.pool.tokens, fitted.structure.lengths, fed)
        if self.learning is not None:
            self.learning.costed = fitted


@dataclass(frozen=True, slots=True)
class Divided:
    """Plans for replicas that work side by side.

    whole: of the job, to tell of; nobody is fed from it where there are several. parts: what each replica begins with.
    reserve: for those who are done first.
    """

    whole: RunPlan
    parts: tuple[RunPlan, ...]
    reserve: RunPlan | None = None

    def for_purpose(self, purpose: Purpose) -> Divided:
        """The same plans for engines of that purpose."""
        parts = tuple(part.for_purpose(purpose) for part in self.parts)
        reserve = None if self.reserve is None else self.reserve.for_purpose(purpose)
        return Divided(self.whole.for_purpose(purpose), parts, reserve)


@dataclass(slots=True)
class Learning:
    """Lengths that follow the run's own answers, and the plan that follows the lengths.

    scattered: which of the two blends it is (`blend.split`).
    """

    costed: Costed
    order: OrderName
    scattered: bool
    learner: Learner
    feeder: PlanFeeder

    def remember(self, identity: str) -> None:
        """Leave the answers' lengths to later runs of the model. Raises HistoryUnavailableError."""
        learner = self.learner
        if not learner.prompt or not learns():
            return
        clusters = learner.prompts.cluster[np.array(learner.prompt, dtype=np.int64)]
        tokens, finished = np.array(learner.tokens), np.array(learner.finished)
        History.open().record(identity, clusters, tokens, finished)

    def plan_again(self, samples: Samples) -> tuple[Lengths, Order | Blend] | None:
        """New lengths and a plan by them; None where little has changed. For a thread: changes nothing here but
        `learner.lengths`."""
        lengths = self.learner.learn(samples)
        if lengths is None:
            return None
        structure = replace(self.costed.structure, lengths=lengths)
        return lengths, order_to_feed(cost_again(self.costed, structure), self.order, self.scattered)


def candidate_plan(costed: Costed, chosen: Candidate, feeder: Feeder) -> RunPlan:
    """A simulated candidate as a run would feed it. feeder: of its order or blend."""
    return RunPlan(
        feeder=feeder,
        order=chosen.order,
        overlap=chosen.overlap,
        # A constant one of exclusive mode is the engine's own chunk.
        budget=None
        if chosen.overlap is Overlap.EXCLUSIVE and isinstance(chosen.budget, ConstantBudget)
        else chosen.budget,
        planned=True,
        reserve=chosen.admission.reserve == EXACT,
        queue_depth=queue_depth_of(costed, chosen),
    )


def queue_depth_of(costed: Costed, chosen: Candidate | None) -> int:
    """So many may be admitted before the next ones arrive: two steps full of prefill, as prompts come in bursts.

    With a plan, in some of its steps, or tenths of a second, where that is more.
    """
    tree = costed.structure.tree
    prompts = max(tree.prompts, 1)
    fresh, step = (tree.prompt_tokens - tree.shared_tokens) / prompts, costed.chunk
    if chosen is not None:
        outcome, budget = chosen.outcome, chosen.budget
        fresh = (outcome.prefill_tokens - outcome.recomputed_tokens) / prompts
        step = budget.most if isinstance(budget, AdaptiveBudget) else budget.tokens
    wanted = _FULL_STEPS * step / max(fresh, 1.0)
    if chosen is not None:
        often = max(_QUEUED_STEPS / max(outcome.steps, 1), _QUEUED_SECONDS / max(outcome.seconds, 1e-9))
        wanted = max(wanted, prompts * often)
    return int(min(max(wanted, _SHALLOWEST_QUEUE), _DEEPEST_QUEUE))


def order_to_feed(costed: Costed, order: OrderName, scattered: bool) -> Order | Blend:
    """What is fed of an order. scattered: which of the two blends it is."""
    if order is not OrderName.BLENDED:
        return costed.order(order)
    return costed.scattered if scattered else costed.blend


def cost_again(costed: Costed, structure: Structure) -> Costed:
    """Another structure where `costed` was. Raises UsageError where the model does not fit."""
    cost = partial(cost_structure, structure, costed.model, costed.machine, limits=costed.limits)
    return run_small(len(structure.prompts), cost)
