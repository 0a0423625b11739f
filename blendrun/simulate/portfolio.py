"""Every order on every overlap mode, simulated: the best one, and why.

The blend is one candidate among simple orders, so what is chosen is never predicted to be slower than any of them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Blend, Order
from blendrun.blend.budget import Budget, ConstantBudget
from blendrun.blend.orders import SIMPLEST_FIRST
from blendrun.blend.portion import Portion
from blendrun.cost.balance import Bound, bound_seconds
from blendrun.cost.base import Demand, Machine
from blendrun.cost.capacity import KvPool, kv_pool
from blendrun.cost.formulas import demand as demand_of
from blendrun.cost.reserve import engine_chunk
from blendrun.errors import UsageError
from blendrun.events import Listener, Progress, ignore
from blendrun.lengths.base import Lengths
from blendrun.models.card import ModelCard
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import EXACT, Eviction, Outcome, SimulatedEngine, StepTime
from blendrun.simulate.budgets import budgets_to_try
from blendrun.simulate.draw import draw_outputs
from blendrun.simulate.own import REFRESH_LOOKS
from blendrun.simulate.practical import practical_bound
from blendrun.simulate.sentence import TIE, choice_sentence, time_sentence
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time, times_rest_on
from blendrun.simulate.worth import WORTH_TOKENS
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.interpreted import interprets
from blendrun.tree.restrict import restrict

# Larger jobs are simulated with fewer step budgets: those that are best on so many of their requests.
_LARGE = 200_000
_PART = 50_000
# Of each order on each mode so many, if they are so near to the best.
_PROMISING, _NEAR = 2, 0.03
_MODES = tuple(Overlap)


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """Who admits requests and keeps the cache: `SimulatedEngine` has the meaning of each."""

    gate: bool
    reserve: float
    eviction: Eviction


# blendrun knows what comes next, and what each request needs until its end.
BLENDRUN = AdmissionPolicy(gate=True, reserve=EXACT, eviction=Eviction.NEXT_USE)
# Share of what running requests may still answer that SGLang itself keeps free at first.
OWN_RESERVE = 0.7
# Tokens of an answer that SGLang reserves at most (`CLIP_MAX_NEW_TOKENS`).
OWN_CLIP = 4096
# The same with SGLang's own reserve: more comes in than fits if all answers are as long as expected, and some is sent
# back. Where steps are bound by reading the weights, fuller steps are worth that. Answers of fixed length come in later
# than they would fit, in fewer and fuller steps.
EAGER = AdmissionPolicy(gate=True, reserve=OWN_RESERVE, eviction=Eviction.NEXT_USE)
# SGLang as it comes.
STOCK = AdmissionPolicy(gate=False, reserve=OWN_RESERVE, eviction=Eviction.LRU)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One order on one overlap mode, with the best budget of those tried.

    fed: what was fed: an order from its front, or a blend from both ends. paced: see `Engine`. engine: simulated.
    tokens_per_second: prompt (cached ones too) and output tokens, as the paper counts throughput.
    cost: in the currency of the price; None without one. eligible: False where it is here for comparison alone.
    """

    order: OrderName
    overlap: Overlap
    fed: Order | Blend
    admission: AdmissionPolicy
    budget: Budget
    paced: bool
    engine: SimulatedEngine
    outcome: Outcome
    tokens_per_second: float
    cost: float | None
    eligible: bool = True

    @property
    def seconds(self) -> float:
        return self.outcome.seconds


@dataclass(frozen=True, slots=True, eq=False)
class Portfolio:
    """All candidates, by overlap mode and order, simplest first.

    chosen: one of `candidates`. why: a sentence. plain: the given order on the engine as it comes, which nobody chose:
    what the job would take without blendrun.
    step: the constants simulated with. outputs: i64 (M,), the answer lengths simulated with; expected: those that
    admission believed in.
    bound: of the job. practical_seconds: the least of any order on these modes
    (docs/paper.md#the-practical-bound).
    part: requests on which budgets, reserve and pace were compared, where only what was best there was simulated whole
    (all `candidates` are); else 0.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    why: str
    plain: Candidate
    step: StepTime
    outputs: NDArray[np.int64]
    expected: NDArray[np.int64]
    bound: Bound
    practical_seconds: float
    part: int = 0


def simulate_portfolio(
    tree: PrefixTree,
    prompts: Prompts,
    lengths: Lengths,
    orders: Sequence[Order],
    blends: Sequence[Blend],
    model: ModelCard,
    machine: Machine,
    *,
    pool: KvPool | None = None,
    demand: Demand | None = None,
    overlaps: Sequence[Overlap] = (Overlap.EXCLUSIVE, Overlap.MIXED),
    beside: Container[OrderName | Overlap] = (),
    budgets: Sequence[Budget] | None = None,
    thorough: bool | None = None,
    chunk: int | None = None,
    max_running: int | None = None,
    shared_reads: int | None = None,
    step: StepTime | None = None,
    outputs: NDArray[np.int64] | None = None,
    admissions: Sequence[AdmissionPolicy] | None = None,
    gpu_hour: float | None = None,
    listener: Listener = ignore,
) -> Portfolio:
    """Simulate every order and blend on every overlap mode and choose.

    orders: simple orders. blends: the job blended in several ways.
    pool, demand, step: of model and machine; worked out where None.
    overlaps: modes to simulate. beside: of these, and of the orders, what is simulated for comparison and never chosen.
    budgets: tried on mixed and pdmux; None for those of `budgets_to_try`.
    thorough: try more budgets, and blends with pace too; None for jobs of no more than 200,000 prompts. Of larger ones
        all that are tried in a part of 50,000, and whole the usual budget and what was best there, by order and mode.
    chunk: the engine's own prefill chunk, which exclusive mode keeps; None for the card's.
    max_running: answers that are decoded at once; None for as many as the pool holds.
    shared_reads: see `SimulatedEngine`; a `demand` that is given counts as it does.
    outputs: i64 (M,), true answer lengths; drawn from `lengths` where None (`draw_outputs`). Admission believes the
        means of `lengths`.
    admissions: how candidates may be admitted, `plain` excepted; None for BLENDRUN, and EAGER too if thorough.
    gpu_hour: price of an hour of one device.
    listener: told the progress in simulations.

    One engine; several are simulated each with its own part of the job (`side_by_side`). Each simulation takes about
    2 microseconds a request and as much a step; all cores are used.
    Raises UsageError for a request that does not fit the pool, and for rates that give no time.
    """
    pool = pool or kv_pool(model, machine)
    demand = demand or demand_of(tree, prompts, lengths, model, machine, shared_reads=shared_reads)
    step = step or step_time(model, machine, gpus=pool.gpus)
    chunk = chunk or engine_chunk(machine.card)
    truth = _within(pool, prompts, draw_outputs(lengths) if outputs is None else outputs)
    expected = np.rint(lengths.mean).astype(np.int64)
    limits = np.where(prompts.known, truth, np.maximum(prompts.bound, truth))
    job = _Job(tree, prompts, truth, expected, limits, step, pool, machine.gpus, gpu_hour, max_running, shared_reads)
    bound = bound_seconds(demand, machine)
    decoded = float((lengths.mean * prompts.choices).sum())
    least = practical_bound(
        tree, prompts, truth, step, pool_tokens=pool.tokens, max_running=max_running, shared_reads=shared_reads
    )
    plain = _Trial(_plain(orders, len(prompts)), Overlap.EXCLUSIVE, ConstantBudget(chunk), False, STOCK)

    def variants(thorough: bool) -> list[_Trial]:
        wanted = budgets_to_try(demand, pool, step, bound, decoded, chunk, thorough=thorough)
        every, paces = ((BLENDRUN, EAGER), (False, True)) if thorough else ((BLENDRUN,), (False,))
        trials = []
        for overlap in overlaps:
            for budget in list(budgets or wanted[overlap]) if overlap is not Overlap.EXCLUSIVE else wanted[overlap]:
                for admission in admissions or every:
                    trials += [_Trial(order, overlap, budget, False, admission) for order in orders]
                    trials += [_Trial(blend, overlap, budget, paced, admission) for blend in blends for paced in paces]
        return trials

    trials, part = variants(len(prompts) <= _LARGE if thorough is None else thorough), 0
    if thorough is None and len(prompts) > _LARGE:
        more, part = job.promising(variants(True), listener)
        trials += [trial for trial in more if trial.ways not in {each.ways for each in trials}]
    shown, *found = job.run([plain, *trials], listener)
    best = tuple(
        replace(each, eligible=each.order not in beside and each.overlap not in beside) for each in best_of_each(found)
    )
    chosen = choose(best)
    return Portfolio(
        candidates=best,
        chosen=chosen,
        why=why_of(chosen, best, shown, step, part),
        plain=shown,
        step=step,
        outputs=truth,
        expected=expected,
        bound=bound,
        practical_seconds=least.seconds([mode for mode in overlaps if mode not in beside]),
        part=part,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    fed: Order | Blend
    overlap: Overlap
    budget: Budget
    paced: bool
    admission: AdmissionPolicy

    @property
    def row(self) -> tuple[OrderName, Overlap]:
        """What it is a variant of."""
        return self.fed.order.name if isinstance(self.fed, Blend) else self.fed.name, self.overlap

    @property
    def ways(self) -> tuple[object, ...]:
        """The same for two that are alike."""
        return id(self.fed), self.overlap, self.budget, self.paced, self.admission


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What all simulations of a portfolio share."""

    tree: PrefixTree
    prompts: Prompts
    outputs: NDArray[np.int64]
    expected: NDArray[np.int64]
    limits: NDArray[np.int64]
    step: StepTime
    pool: KvPool
    gpus: int
    gpu_hour: float | None
    max_running: int | None
    shared_reads: int | None

    def run(self, trials: Sequence[_Trial], listener: Listener) -> list[Candidate]:
        """In threads: the simulator's kernel runs without the interpreter's lock."""
        found = []
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            # Interpreted, threads would only wait for each other.
            each = map if interprets() else threads.map
            for done, candidate in enumerate(each(self._simulate, trials), start=1):
                found.append(candidate)
                listener(Progress(done, len(trials), "simulations"))
        return found

    def promising(self, trials: Sequence[_Trial], listener: Listener) -> tuple[list[_Trial], int]:
        """Of each order on each mode the variants that are soonest on a part of the job; and the part's requests.

        None and 0 where there is no blend to divide the job by, or no part like it.
        """
        feeds = {id(trial.fed): trial.fed for trial in trials}
        blends = [fed for fed in feeds.values() if isinstance(fed, Blend)]
        portion = Portion.like_whole(blends[0], self.prompts, self.expected, _PART) if blends else None
        if portion is None:
            return [], 0
        numbers, parts = portion.numbers, {key: portion.of(fed) for key, fed in feeds.items()}
        job = replace(
            self,
            tree=restrict(self.tree, numbers),
            prompts=self.prompts.take(numbers),
            outputs=self.outputs[numbers],
            expected=self.expected[numbers],
            limits=self.limits[numbers],
        )
        found = job.run([replace(trial, fed=parts[id(trial.fed)]) for trial in trials], listener)
        rows: dict[tuple[OrderName, Overlap], list[tuple[float, _Trial]]] = {}
        for trial, candidate in zip(trials, found, strict=True):
            rows.setdefault(trial.row, []).append((candidate.seconds, trial))
        best = []
        for row in rows.values():
            # Of variants that came to the same, one.
            apart = sorted(dict(reversed(row)).items())
            best += [trial for seconds, trial in apart[:_PROMISING] if seconds <= apart[0][0] * (1 + _NEAR)]
        return best, len(numbers)

    def _simulate(self, trial: _Trial) -> Candidate:
        engine = SimulatedEngine(
            pool_tokens=self.pool.tokens,
            overlap=trial.overlap,
            max_running=1 << 30 if self.max_running is None else self.max_running,
            budget=trial.budget,
            gate=trial.admission.gate,
            gate_tokens=WORTH_TOKENS,
            reserve=trial.admission.reserve,
            clip=OWN_CLIP,
            refresh=REFRESH_LOOKS if trial.admission.eviction is Eviction.LRU else 0,
            eviction=trial.admission.eviction,
            paced=trial.paced,
            shared_reads=self.shared_reads,
        )
        outcome = simulate(
            *(self.tree, self.prompts, trial.fed, self.outputs, self.step, engine),
            expected=self.expected,
            limits=self.limits,
            fixed=self.prompts.known,
            ends=False,
        )
        seconds = max(outcome.seconds, 1e-9)
        tokens = self.prompts.prompt_tokens.sum(dtype=np.int64) + (self.outputs * self.prompts.choices).sum()
        return Candidate(
            order=trial.row[0],
            overlap=trial.overlap,
            fed=trial.fed,
            admission=trial.admission,
            budget=trial.budget,
            paced=trial.paced,
            engine=engine,
            outcome=outcome,
            tokens_per_second=float(tokens) / seconds,
            cost=None if self.gpu_hour is None else self.gpu_hour * self.gpus * outcome.seconds / 3600,
        )


def _plain(orders: Sequence[Order], count: int) -> Order:
    """The given order."""
    found = (order for order in orders if order.name is OrderName.GIVEN)
    return next(found, Order(OrderName.GIVEN, np.arange(count), np.full(count, LEFT, dtype=np.uint8)))


def _within(pool: KvPool, prompts: Prompts, outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Answers as long as the pool allows: the engine ends one that fills it. Raises UsageError for a longer prompt."""
    room = (pool.tokens - prompts.prompt_tokens.astype(np.int64)) // prompts.choices
    if len(room) and room.min() < 1:
        place = int(np.argmin(room))
        raise UsageError(
            f"the prompt of request {int(prompts.row[place]) + 1} has {int(prompts.prompt_tokens[place]):,} tokens, "
            f"and the KV cache holds {pool.tokens:,}: it cannot run there; leave it out, or use a larger device"
        )
    within: NDArray[np.int64] = np.minimum(outputs, room)
    return within


def best_of_each(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The soonest of each (overlap, order), by mode and simplicity; of equal ones the first tried."""
    best: dict[tuple[int, int], Candidate] = {}
    for candidate in found:
        key = (_MODES.index(candidate.overlap), SIMPLEST_FIRST.index(candidate.order))
        if key not in best or candidate.seconds < best[key].seconds:
            best[key] = candidate
    return tuple(best[key] for key in sorted(best))


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The soonest; of those eligible, no more than `TIE` behind it, the simplest order on the simplest mode."""
    open_to_choice = [candidate for candidate in candidates if candidate.eligible]
    soonest = min(candidate.seconds for candidate in open_to_choice)
    ties = [candidate for candidate in open_to_choice if candidate.seconds <= soonest * (1 + TIE)]
    return min(ties, key=lambda each: (SIMPLEST_FIRST.index(each.order), _MODES.index(each.overlap), each.seconds))


def why_of(chosen: Candidate, candidates: Sequence[Candidate], plain: Candidate, step: StepTime, part: int = 0) -> str:
    """Sentences (`simulate.sentence`): why it was chosen of those there was a choice of, and the seconds.

    step, part: as of `Portfolio`."""
    seconds: dict[OrderName, float] = {}
    for each in candidates:
        if each.eligible:
            seconds[each.order] = min(each.seconds, seconds.get(each.order, each.seconds))
    seconds[chosen.order] = chosen.seconds
    calibrated = times_rest_on(step) in ("learned", "measured")
    said = choice_sentence(chosen.order, seconds)
    said += f" {time_sentence(chosen.seconds, plain.seconds, calibrated=calibrated)}"
    return f"{said} Budgets and admission were compared on {part:,} of its requests." if part else said
