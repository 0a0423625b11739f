"""Makes the plan of a run: which order on which overlap mode, for one engine or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.orders import AUTOMATIC, ORDERS
from blendrun.blend.partition import partition
from blendrun.cost.base import Machine
from blendrun.cost.capacity import NO_LIMITS, EngineLimits, kv_pool
from blendrun.cost.detect import Runs, own_hardware
from blendrun.cost.hardware import STAND_IN, load_hardware, machine
from blendrun.errors import InputMissingError, OverlapRefusedError, UsageError
from blendrun.events import Listener, Note, PhaseStarted, ignore
from blendrun.jobs.job import Job
from blendrun.learned.own import OwnSpeed
from blendrun.models.resolve import ResolvedModel
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.feeder import PlanFeeder, RowFeeder, parents
from blendrun.planner.findings import Finding, Severity, answer_findings, prompt_findings, worst_first
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
from blendrun.planner.run_plan import (
    Divided,
    Learning,
    RunPlan,
    candidate_plan,
    cost_again,
    order_to_feed,
    queue_depth_of,
)
from blendrun.planner.workload import PlannedModel
from blendrun.simulate.portfolio import Candidate
from blendrun.simulate.steptime import step_time, times_rest_on
from blendrun.tokens.build import build_prompts
from blendrun.tokens.load import load_engine_tokenizer
from blendrun.tree.small import begin_loading_for, run_small

_T = TypeVar("_T")
# Of a job's work, what no replica begins with: it goes to those who are done first.
_RESERVE = 0.05
# What times rest on that nothing here has measured.
_UNCALIBRATED = "not calibrated, real steps take longer"


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """Plans the accepted rows of a job for a model on this machine.

    order, overlap: as asked for; None lets the simulator choose. overlaps: the choice for overlap None, simplest first.
    refusal: says why a mode cannot be had for a job (whether any request wants log probabilities), None where it can.
    limits: of the engine, as far as they are known before it starts, its devices among them.
    hardware: a card's name; None for this machine's.
    platform: what the engine runs on; None where nobody says.
    own: how fast the engine is, where it is this machine's; it has the machine, too.
    arguments: the engine's, of which some decide what prompts are.
    told: kinds of findings that were told.
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
    own: OwnSpeed | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def plan(self, job: Job, rows: NDArray[np.int64], listener: Listener = ignore) -> RunPlan:
        """A plan for `rows` (i64) of the job. What cannot be tokenised is fed last.

        Where no order was asked for and none can be planned, rows are fed as they stand, and a warning says why.
        Raises OverlapRefusedError, UsageError, InputMissingError (no tokenizer), OutputUnavailableError (no room for
        the token store).
        """
        given = RunPlan(RowFeeder(rows), OrderName.GIVEN, self.overlap or Overlap.EXCLUSIVE)
        return self._or_as_given(job, lambda: self._plan(job, rows, listener), given, listener)

    def divide(self, job: Job, rows: NDArray[np.int64], replicas: int, listener: Listener = ignore) -> Divided:
        """A plan for each of several replicas: parts of equal work at the borders of prefix groups, and a reserve.

        Rows that cannot be tokenised are the first one's. Where no order was asked for and none can be planned,
        consecutive rows go to each. Raises as `plan` does.
        """
        given = _divided_as_given(rows, replicas, self.overlap or Overlap.EXCLUSIVE)
        return self._or_as_given(job, lambda: self._divide(job, rows, replicas, listener), given, listener)

    def _or_as_given(self, job: Job, make: Callable[[], _T], given: _T, listener: Listener) -> _T:
        """What `make` plans, or `given` where that cannot be done and no order was asked for."""
        try:
            return run_small(len(job.distinct), make)
        except OverlapRefusedError:
            raise
        except (UsageError, InputMissingError) as error:
            if self.order is not None:
                raise
            listener(Note(f"not planned, fed as given: {error}", warning=True))
            return given

    def _divide(self, job: Job, rows: NDArray[np.int64], replicas: int, listener: Listener) -> Divided:
        costed, overlaps, findings = self._costed(job, listener)
        wanted = np.flatnonzero(np.isin(costed.structure.prompts.row, rows))
        if not len(wanted):
            # None of them can be tokenised: all will be refused.
            return _divided_as_given(rows, replicas, overlaps[0])
        todo = cost_again(costed, costed.structure.take(wanted))
        shares = [*[(1 - _RESERVE) / replicas] * replicas, _RESERVE]
        cut = partition(todo.structure.tree, todo.demand, replicas + 1, shares=shares)
        listener(PhaseStarted("simulate", f"{len(wanted):,} requests on {replicas} replicas"))
        whole = make_parts(todo, self._choice(overlaps), cut, listener)
        self._tell_uncalibrated(whole, listener)
        divided = self._of_parts(whole, rows, replicas, listener)
        return replace(divided, whole=replace(divided.whole, findings=findings))

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
            decode_share=plans[0].decode_share,
            times=plans[0].times,
            simulated=whole,
        )
        return Divided(told, (*plans, *[empty] * (replicas - len(plans))), reserve)

    def _plan(self, job: Job, rows: NDArray[np.int64], listener: Listener) -> RunPlan:
        costed, overlaps, findings = self._costed(job, listener)
        return replace(self._choose(costed, rows, overlaps, listener), findings=findings)

    def _costed(self, job: Job, listener: Listener) -> tuple[Costed, tuple[Overlap, ...], tuple[Finding, ...]]:
        """All accepted rows on one engine, the modes that it can be run in, and what will go wrong."""
        card, on = self.model.card, self._machine(listener)
        if card is None:
            raise UsageError(f"{self.model.name} has no dimensions to plan with; use --order given or shuffled")
        begin_loading_for(len(job.distinct))
        listener(PhaseStarted("tokenise", self.model.name))
        context = self.model.context_length or card.context_length
        tokenizer = load_engine_tokenizer(self.model.path, self.arguments, bidirectional=self.model.bidirectional)
        # A prompt that the pool cannot hold is the engine's to refuse.
        room = min(context, kv_pool(card, on, self.limits).tokens)
        tokenized = build_prompts(job, tokenizer, context_length=room, listener=listener)
        planned = PlannedModel(self.model.name, card, self.model.identity, context, tokenizer)
        structure = make_structure(tokenized.prompts, planned, self.lengths, listener)
        findings = worst_first(
            (
                *prompt_findings(job, tokenized, self.model.name, room),
                *answer_findings(structure.prompts, structure.lengths),
            )
        )
        self._tell_findings(findings, listener)
        listener(PhaseStarted("blend", f"{len(structure.prompts):,} prompts"))
        costed = cost_structure(structure, card, on, limits=self.limits)
        return costed, self._possible(bool(tokenized.logprobs.any()), listener), findings

    def _tell_findings(self, findings: Iterable[Finding], listener: Listener) -> None:
        """Once, however often the job is planned again."""
        for finding in findings:
            if finding.code not in self.told:
                self.told.add(finding.code)
                listener(Note(finding.message, warning=finding.severity is not Severity.NOTE))

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
        if self.own is not None:
            return self.own.machine
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
        if simulated and not plan.times and times_rest_on(simulated.portfolio.step) != "measured":
            plan = replace(plan, times=_UNCALIBRATED)
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
        prompts, learned = costed.structure.prompts, costed.machine.learned
        order = chosen.order if chosen else self.order or OrderName.GIVEN
        scattered = chosen is not None and chosen.fed is costed.scattered
        fed = chosen.fed if chosen else order_to_feed(costed, order, scattered)
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
        plan = RunPlan(feeder, order, otherwise, planned=True, reserve=True, queue_depth=queue_depth_of(costed, None))
        if chosen is not None:
            plan = replace(
                candidate_plan(costed, chosen, feeder),
                max_running=most_running(chosen.outcome, costed.graph_rows, guessed=learner.needed),
                predicted_seconds=chosen.outcome.seconds if wanted.all() else None,
                predicted_hit_tokens=chosen.outcome.hit_tokens if wanted.all() else None,
            )
        return replace(
            plan,
            prompt_tokens=int(prompts.prompt_tokens[wanted].sum(dtype=np.int64)),
            output_tokens=float((costed.structure.lengths.mean * prompts.choices)[wanted].sum()),
            decode_share=_decode_share(costed, chosen),
            times=learned.sentence if learned is not None else "",
            learning=Learning(costed, order, scattered, learner, feeder) if learner.needed else None,
            costed=costed,
            scattered=scattered,
        )

    def _tell_uncalibrated(self, plan: Plan, listener: Listener) -> None:
        """Before any time is told. Of a GPU: on a CPU nobody relies on times."""
        card, learned = plan.costed.machine.card, plan.costed.machine.learned
        if learned is not None:
            listener(Note(f"times: {learned.sentence}"))
        elif card.kind == "gpu" and times_rest_on(plan.portfolio.step) != "measured":
            listener(
                Note(
                    f"times are not calibrated: they rest on the rates of {card.name}, and real steps take longer; "
                    f"runs on this machine teach them, `blendrun calibrate --model {self.model.name}` measures them"
                )
            )

    def _choice(self, overlaps: tuple[Overlap, ...]) -> Choice:
        orders: Iterable[OrderName] = AUTOMATIC if self.order is None else (self.order,)
        return Choice(tuple(orders), overlaps)


def _divided_as_given(rows: NDArray[np.int64], replicas: int, overlap: Overlap) -> Divided:
    given = [RunPlan(RowFeeder(part), OrderName.GIVEN, overlap) for part in np.array_split(rows, replicas)]
    return Divided(RunPlan(RowFeeder(rows), OrderName.GIVEN, overlap), tuple(given))


def _decode_share(costed: Costed, chosen: Candidate | None) -> float:
    """Part of the predicted seconds that is not of prompts."""
    if chosen is None or chosen.outcome.seconds <= 0:
        return 0.5
    step = step_time(costed.model, costed.machine, gpus=costed.pool.gpus)
    prompts = step.prefill_token * chosen.outcome.prefill_tokens + step.request * len(costed.structure.prompts)
    return float(np.clip(1 - prompts / chosen.outcome.seconds, 0.0, 1.0))


def _learner(costed: Costed, identity: str, mode: LengthMode, listener: Listener) -> Learner:
    structure = costed.structure
    history = recall(structure.prompts, identity, listener)
    return Learner(structure.prompts, structure.tree, mode, history, structure.lengths)


def _sample(structure: Structure, order: OrderName, learner: Learner) -> NDArray[np.int64] | None:
    """Only where the order depends on lengths."""
    if not ORDERS[order].needs_lengths or not learner.needed:
        return None
    return sample_first(structure.prompts, structure.tree, structure.lengths)
