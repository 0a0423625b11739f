"""The plan of a run: which order on which overlap mode, and the feeder that hands it to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import Budget
from blendrun.blend.orders import AUTOMATIC, ORDERS
from blendrun.blend.partition import partition
from blendrun.cost.base import Machine
from blendrun.cost.capacity import NO_LIMITS, EngineLimits, kv_pool
from blendrun.cost.detect import Runs, own_hardware
from blendrun.cost.hardware import STAND_IN, load_hardware, machine
from blendrun.errors import InputMissingError, OverlapRefusedError, UsageError
from blendrun.events import Listener, Note, PhaseStarted, ignore
from blendrun.jobs.job import Job
from blendrun.lengths.base import Lengths
from blendrun.lengths.evidence import Samples
from blendrun.lengths.history import History
from blendrun.models.resolve import ResolvedModel
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.feeder import Feeder, PlanFeeder, RowFeeder, parents
from blendrun.planner.learner import Learner, sample_first
from blendrun.planner.plan import (
    Choice,
    Costed,
    Plan,
    Structure,
    cost_structure,
    make_parts,
    make_plan,
    make_structure,
    recall,
)
from blendrun.planner.rows import most_running
from blendrun.planner.workload import PlannedModel
from blendrun.simulate.base import EXACT
from blendrun.simulate.portfolio import Candidate
from blendrun.tokens.build import build_prompts
from blendrun.tokens.load import load_tokenizer

_T = TypeVar("_T")
_DEEPEST_QUEUE, _SHALLOWEST_QUEUE = 128, 16
# What a request's way to the engine's queue may take while others are admitted.
_QUEUED_STEPS, _QUEUED_SECONDS = 4, 0.25
# A pool that differs by less from the planned one divides a blend as well.
_SAME_POOL = 0.03
# Of a job's work, what no replica begins with: it goes to those who are done first.
_RESERVE = 0.05


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run goes by.

    feeder: gives the requests. order, overlap, budget: chosen or asked for; budget None leaves the engine its chunk.
    why: of the choice, a sentence; empty where nothing was chosen.
    planned: whether requests carry what the scheduler plug-in admits and evicts by. reserve: whether it admits by
        expected lengths at every step to come, or as SGLang does.
    predicted_seconds, predicted_hit_tokens: of all that is to be fed; None where nothing was simulated.
    prompt_tokens, output_tokens: of all that is to be fed, the latter expected; None where nothing was tokenised.
    queue_depth: requests that wait in the engine beside those that run: enough that it never starves.
    max_running: answers that a GPU's engine is to allow at once; None where nothing was simulated.
    costed, scattered: what the feeder's order was made of, and which of its two blends that is.
    simulated: all orders that were simulated, with the tree and the time line; None where none was.
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
    prompt_tokens: int | None = None
    output_tokens: float | None = None
    queue_depth: int = _DEEPEST_QUEUE
    learning: Learning | None = None
    max_running: int | None = None
    costed: Costed | None = None
    scattered: bool = False
    simulated: Plan | None = None

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
        return _again(found, found.structure)

    def fit(self, fitted: Costed) -> None:
        """Go by what `fitted` has made, before anything is fed."""
        if isinstance(self.feeder, PlanFeeder) and self.order is OrderName.BLENDED:
            fed = _order_to_feed(fitted, self.order, self.scattered)
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
        if not learner.prompt:
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
        return lengths, _order_to_feed(_again(self.costed, structure), self.order, self.scattered)


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """Plans the accepted rows of a job for a model on this machine.

    order, overlap: as asked for; None lets the simulator choose. overlaps: the choice for overlap None, simplest first.
    refusal: says why a mode cannot be had for a job (whether any request wants log probabilities), None where it can.
    limits: of the engine, as far as they are known before it starts, its devices among them.
    hardware: a card's name; None for this machine's.
    platform: what the engine runs on; None where nobody says.
    """

    model: ResolvedModel
    order: OrderName | None
    overlap: Overlap | None = Overlap.EXCLUSIVE
    overlaps: tuple[Overlap, ...] = (Overlap.EXCLUSIVE,)
    refusal: Callable[[Overlap, bool], str | None] = lambda _, __: None
    limits: EngineLimits = NO_LIMITS
    lengths: LengthMode = LengthMode.AUTO
    hardware: str | None = None
    platform: Runs | None = None

    def plan(self, job: Job, rows: NDArray[np.int64], listener: Listener = ignore) -> RunPlan:
        """A plan for `rows` (i64) of the job. What cannot be tokenised is fed first, so that its error is seen early.

        Where no order was asked for and none can be planned, rows are fed as they stand, and a warning says why.
        Raises OverlapRefusedError, UsageError, InputMissingError (no tokenizer), OutputUnavailableError (no room for
        the token store).
        """
        given = RunPlan(RowFeeder(rows), OrderName.GIVEN, self.overlap or Overlap.EXCLUSIVE)
        return self._or_as_given(lambda: self._plan(job, rows, listener), given, listener)

    def divide(self, job: Job, rows: NDArray[np.int64], replicas: int, listener: Listener = ignore) -> Divided:
        """A plan for each of several replicas: parts of equal work at the borders of prefix groups, and a reserve.

        Rows that cannot be tokenised are the first one's. Where no order was asked for and none can be planned,
        consecutive rows go to each. Raises as `plan` does.
        """
        given = _divided_as_given(rows, replicas, self.overlap or Overlap.EXCLUSIVE)
        return self._or_as_given(lambda: self._divide(job, rows, replicas, listener), given, listener)

    def _or_as_given(self, make: Callable[[], _T], given: _T, listener: Listener) -> _T:
        """What `make` plans, or `given` where that cannot be done and no order was asked for."""
        try:
            return make()
        except OverlapRefusedError:
            raise
        except (UsageError, InputMissingError) as error:
            if self.order is not None:
                raise
            listener(Note(f"not planned, fed as given: {error}", warning=True))
            return given

    def _divide(self, job: Job, rows: NDArray[np.int64], replicas: int, listener: Listener) -> Divided:
        costed, overlaps = self._costed(job, listener)
        wanted = np.flatnonzero(np.isin(costed.structure.prompts.row, rows))
        if not len(wanted):
            # None of them can be tokenised: all will be refused.
            return _divided_as_given(rows, replicas, overlaps[0])
        todo = _again(costed, costed.structure.take(wanted))
        shares = [*[(1 - _RESERVE) / replicas] * replicas, _RESERVE]
        cut = partition(todo.structure.tree, todo.demand, replicas + 1, shares=shares)
        listener(PhaseStarted("simulate", f"{len(wanted):,} requests on {replicas} replicas"))
        whole = make_parts(todo, self._choice(overlaps), cut, listener)
        self._tell_uncalibrated(whole, listener)
        return self._of_parts(whole, rows, replicas, listener)

    def _of_parts(self, whole: Plan, rows: NDArray[np.int64], replicas: int, listener: Listener) -> Divided:
        """All of them on the order and the mode that are best together."""
        chosen = whole.portfolio.chosen
        unplanned = np.setdiff1d(rows, whole.costed.structure.prompts.row, assume_unique=True)
        subtree = parents(whole.costed.structure.tree)
        plans = []
        for number, part in enumerate(whole.parts):
            prompts = part.plan.costed.structure.prompts
            same = (
                each
                for each in part.plan.portfolio.candidates
                if (each.order, each.overlap) == (chosen.order, chosen.overlap)
            )
            first = unplanned if number == 0 else unplanned[:0]
            mine = np.concatenate((prompts.row, first))
            plans.append(self._run_plan(part.plan.costed, next(same), mine, listener, subtree=subtree[part.numbers]))
        # Parts without requests are left out of a plan; the reserve is the last.
        reserve = plans.pop() if len(plans) > replicas else None
        seconds = max(plan.predicted_seconds or 0.0 for plan in plans)
        if reserve is not None:
            seconds += (reserve.predicted_seconds or 0.0) / replicas
        every = plans if reserve is None else [*plans, reserve]
        empty = RunPlan(RowFeeder(rows[:0]), chosen.order, chosen.overlap)
        told = replace(
            empty,
            why=whole.portfolio.why if self.order is None else "",
            planned=True,
            predicted_seconds=seconds,
            predicted_hit_tokens=chosen.outcome.hit_tokens,
            prompt_tokens=sum(plan.prompt_tokens or 0 for plan in every),
            output_tokens=sum(plan.output_tokens or 0.0 for plan in every),
            simulated=whole,
        )
        return Divided(told, (*plans, *[empty] * (replicas - len(plans))), reserve)

    def _plan(self, job: Job, rows: NDArray[np.int64], listener: Listener) -> RunPlan:
        costed, overlaps = self._costed(job, listener)
        return self._choose(costed, rows, overlaps, listener)

    def _costed(self, job: Job, listener: Listener) -> tuple[Costed, tuple[Overlap, ...]]:
        """All accepted rows on one engine, and the modes that it can be run in."""
        card, on = self.model.card, self._machine(listener)
        if card is None:
            raise UsageError(f"{self.model.name} has no dimensions to plan with; use --order given or shuffled")
        listener(PhaseStarted("tokenise", self.model.name))
        context = self.model.context_length or card.context_length
        tokenizer = load_tokenizer(self.model.path)
        tokenized = build_prompts(
            job,
            tokenizer,
            # A prompt that the pool cannot hold is the engine's to refuse.
            context_length=min(context, kv_pool(card, on, self.limits).tokens),
            listener=listener,
        )
        planned = PlannedModel(self.model.name, card, self.model.identity, context, tokenizer)
        structure = make_structure(tokenized.prompts, planned, self.lengths, listener)
        listener(PhaseStarted("blend", f"{len(structure.prompts):,} prompts"))
        costed = cost_structure(structure, card, on, limits=self.limits)
        return costed, self._possible(bool(tokenized.logprobs.any()), listener)

    def _possible(self, logprobs: bool, listener: Listener) -> tuple[Overlap, ...]:
        """Modes to choose from. Raises OverlapRefusedError where the one that was asked for cannot be had."""
        if self.overlap is not None:
            if sentence := self.refusal(self.overlap, logprobs):
                raise OverlapRefusedError(sentence)
            return (self.overlap,)
        found = []
        for mode in self.overlaps:
            if sentence := self.refusal(mode, logprobs):
                listener(Note(sentence, warning=True))
            else:
                found.append(mode)
        return tuple(found) or (Overlap.EXCLUSIVE,)

    def _machine(self, listener: Listener) -> Machine:
        """The devices of one replica."""
        devices = self.limits.devices or 1
        try:
            return machine(load_hardware(self.hardware or own_hardware(self.platform)), devices)
        except UsageError as error:
            if self.hardware is not None:
                raise
            listener(Note(f"{error}; planned as for {STAND_IN}", warning=True))
            return machine(load_hardware(STAND_IN), devices)

    def _choose(
        self, costed: Costed, rows: NDArray[np.int64], overlaps: tuple[Overlap, ...], listener: Listener
    ) -> RunPlan:
        simulated = None
        if len(costed.structure.prompts):
            listener(PhaseStarted("simulate", f"{len(costed.structure.prompts):,} requests"))
            simulated = make_plan(costed, self._choice(overlaps), listener)
            self._tell_uncalibrated(simulated, listener)
        chosen = simulated.portfolio.chosen if simulated else None
        plan = self._run_plan(costed, chosen, rows, listener, overlaps[0])
        why = simulated.portfolio.why if simulated and self.order is None else ""
        return replace(plan, why=why, simulated=simulated)

    def _run_plan(
        self,
        costed: Costed,
        chosen: Candidate | None,
        rows: NDArray[np.int64],
        listener: Listener,
        otherwise: Overlap = Overlap.EXCLUSIVE,
        subtree: NDArray[np.int64] | None = None,
    ) -> RunPlan:
        """rows: to be fed. otherwise: the mode where nothing was simulated. subtree: see `PlanFeeder`."""
        prompts = costed.structure.prompts
        order = chosen.order if chosen else self.order or OrderName.GIVEN
        overlap = chosen.overlap if chosen else otherwise
        scattered = chosen is not None and chosen.fed is costed.scattered
        fed = chosen.fed if chosen else _order_to_feed(costed, order, scattered)
        wanted = np.isin(prompts.row, rows)
        learner = _learner(costed, self.model.identity, self.lengths, listener)
        feeder = PlanFeeder(
            prompts,
            costed.structure.tree,
            costed.structure.lengths,
            fed,
            wanted=wanted,
            pool_tokens=costed.pool.tokens,
            unplanned=np.setdiff1d(rows, prompts.row, assume_unique=True),
            sample=_sample(costed.structure, order, learner),
            subtree=subtree,
            paced=chosen is not None and chosen.paced,
        )
        whole = chosen is not None and bool(wanted.all())
        return RunPlan(
            feeder=feeder,
            order=order,
            overlap=overlap,
            budget=chosen.budget if chosen and overlap is not Overlap.EXCLUSIVE else None,
            planned=True,
            reserve=chosen is None or chosen.admission.reserve == EXACT,
            predicted_seconds=chosen.outcome.seconds if chosen and whole else None,
            predicted_hit_tokens=chosen.outcome.hit_tokens if chosen and whole else None,
            prompt_tokens=int(prompts.prompt_tokens[wanted].sum(dtype=np.int64)),
            output_tokens=float((costed.structure.lengths.mean * prompts.choices)[wanted].sum()),
            queue_depth=_queue_depth(costed, chosen),
            learning=Learning(costed, order, scattered, learner, feeder) if learner.needed else None,
            max_running=most_running(chosen.outcome, costed.graph_rows, guessed=learner.needed) if chosen else None,
            costed=costed,
            scattered=scattered,
        )

    def _tell_uncalibrated(self, plan: Plan, listener: Listener) -> None:
        """Before any time is told. Of a GPU: on a CPU nobody relies on times."""
        card = plan.costed.machine.card
        if card.kind == "gpu" and set(plan.portfolio.step.origin.values()) != {"measured"}:
            listener(
                Note(
                    f"times are not calibrated: they rest on the rates of {card.name}, and real steps take longer; "
                    f"`blendrun calibrate --model {self.model.name}` measures them once"
                )
            )

    def _choice(self, overlaps: tuple[Overlap, ...]) -> Choice:
        orders: Iterable[OrderName] = AUTOMATIC if self.order is None else (self.order,)
        return Choice(tuple(orders), overlaps)


def _divided_as_given(rows: NDArray[np.int64], replicas: int, overlap: Overlap) -> Divided:
    given = [RunPlan(RowFeeder(part), OrderName.GIVEN, overlap) for part in np.array_split(rows, replicas)]
    return Divided(RunPlan(RowFeeder(rows), OrderName.GIVEN, overlap), tuple(given))


def candidate_plan(costed: Costed, chosen: Candidate, feeder: Feeder) -> RunPlan:
    """A simulated candidate as a run would feed it. feeder: of its order or blend."""
    return RunPlan(
        feeder=feeder,
        order=chosen.order,
        overlap=chosen.overlap,
        budget=None if chosen.overlap is Overlap.EXCLUSIVE else chosen.budget,
        planned=True,
        reserve=chosen.admission.reserve == EXACT,
        queue_depth=_queue_depth(costed, chosen),
    )


def _queue_depth(costed: Costed, chosen: Candidate | None) -> int:
    """So many may be admitted before the next ones arrive: in some steps of the plan, or tenths of a second.

    Without a plan, two steps full of prefill.
    """
    tree = costed.structure.tree
    prompts = max(tree.prompts, 1)
    if chosen is None:
        fresh = (tree.prompt_tokens - tree.shared_tokens) / prompts
        wanted = 2 * costed.chunk / max(fresh, 1.0)
    else:
        outcome = chosen.outcome
        wanted = prompts * max(_QUEUED_STEPS / max(outcome.steps, 1), _QUEUED_SECONDS / max(outcome.seconds, 1e-9))
    return int(min(max(wanted, _SHALLOWEST_QUEUE), _DEEPEST_QUEUE))


def _order_to_feed(costed: Costed, order: OrderName, scattered: bool) -> Order | Blend:
    if order is not OrderName.BLENDED:
        return costed.order(order)
    return costed.scattered if scattered else costed.blend


def _again(costed: Costed, structure: Structure) -> Costed:
    return cost_structure(structure, costed.model, costed.machine, limits=costed.limits)


def _learner(costed: Costed, identity: str, mode: LengthMode, listener: Listener) -> Learner:
    structure = costed.structure
    history = recall(structure.prompts, identity, listener)
    return Learner(structure.prompts, structure.tree, mode, history, structure.lengths)


def _sample(structure: Structure, order: OrderName, learner: Learner) -> NDArray[np.int64] | None:
    """Only where the order depends on lengths."""
    if not ORDERS[order].needs_lengths or not learner.needed:
        return None
    return sample_first(structure.prompts, structure.tree, structure.lengths)
