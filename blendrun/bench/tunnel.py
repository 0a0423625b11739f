"""Orders on SGLang's own scheduler, with a model that computes nothing and steps priced by the model of their time.

Real: the feeder, the hooks, SGLang's scheduler, its radix cache and its allocator of the KV pool, at a GPU's size.
Priced: what a step would take on the card. So what is found is what that scheduler would do there, as far as the steps
last as long as the step model says and the scheduler's own work hides behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, RIGHT
from blendrun.engine.base import Planned, SchedulerSettings
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.tunnel.base import PREFILL, ROWS, Poll, TunnelLog, TunnelRequest, TunnelSettings
from blendrun.engine.tunnel.process import TunnelProcesses
from blendrun.engine.window import side_to_feed
from blendrun.errors import UsageError
from blendrun.events import Listener, Note, PhaseStarted, Progress
from blendrun.names import OrderName, Overlap
from blendrun.planner.feeder import PlanFeeder, QueuedRequest
from blendrun.planner.plan import Plan
from blendrun.planner.run_plan import candidate_plan
from blendrun.runner.dispatch import scheduler_settings
from blendrun.simulate.base import Outcome
from blendrun.simulate.portfolio import Candidate
from blendrun.simulate.price import step_prices
from blendrun.tokens.base import Prompts

# Tokens of a context that are nobody's: SGLang keeps some of it for itself.
_SPARE_CONTEXT = 64
# Requests that the file's order has waiting on SGLang as it comes.
_STOCK_DEPTH = 128


@dataclass(frozen=True, slots=True, eq=False)
class TunnelRound:
    """One order through one tunnel, beside what was planned of it.

    ours: whether with blendrun's hooks; else SGLang as it comes. planned: what the simulator said of it. seconds: the
    steps' prices together. hit_tokens to retractions: as in `Outcome`. rows, peak_rows: that decode, on the mean of the
    steps that decode, and at most. cpu: seconds of the scheduler's thread by part: "scheduler" is SGLang's own work,
    "model" what computing nothing took, all others are hooks. notes: on hooks that did not take.
    """

    order: OrderName
    overlap: Overlap
    ours: bool
    planned: Outcome
    seconds: float
    steps: int
    hit_tokens: int
    recomputed_tokens: int
    prefill_tokens: int
    retractions: int
    rows: float
    peak_rows: int
    cpu: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TunnelRounds:
    """All rounds of a job on a card. max_running: answers that SGLang decodes at once at most."""

    plan: Plan
    max_running: int
    versions: dict[str, str]
    rounds: tuple[TunnelRound, ...]


def run_tunnels(plan: Plan, processes: TunnelProcesses, folder: Path, listener: Listener) -> TunnelRounds:
    """Every candidate of a plan for one replica, and the given order on SGLang as it comes.

    folder: for what the scheduler and the feeder share.
    Raises UsageError for a plan of several replicas or of pdmux and for requests that want several answers,
    EngineUnavailableError where the scheduler fails.
    """
    if plan.parts:
        raise UsageError("a tunnel holds one engine, and this plan is for several")
    if several := int((plan.costed.structure.prompts.choices > 1).sum()):
        raise UsageError(f"{several:,} requests want several answers (n), which a tunnel does not run: leave them out")
    portfolio = plan.portfolio
    if any(each.overlap is Overlap.PDMUX for each in portfolio.candidates):
        raise UsageError("pdmux splits the processors of a GPU: a tunnel has none; leave it out of --overlap")
    wanted = [(portfolio.plain, False), *((each, True) for each in portfolio.candidates)]
    rounds, started = [], None
    for number, (candidate, ours) in enumerate(wanted):
        name = f"{candidate.order} on {candidate.overlap}" if ours else f"{candidate.order} on SGLang as it comes"
        listener(PhaseStarted("tunnel", name))
        occupancy = folder / f"{number}.occupancy"
        feed, settings = _feed(plan, candidate, ours, occupancy, listener)
        with processes.start(settings) as tunnel:
            started = tunnel.started
            log = tunnel.run(feed)
        for note in log.notes:
            listener(Note(note, warning=True))
        rounds.append(_round(plan, candidate, ours, log))
    assert started is not None, "no candidates"
    return TunnelRounds(plan, started.max_running, started.versions, tuple(rounds))


def _feed(
    plan: Plan, candidate: Candidate, ours: bool, path: Path, listener: Listener
) -> tuple[LiveFeed, TunnelSettings]:
    """What is fed through a tunnel, and how its scheduler is started."""
    costed = plan.costed
    structure, outputs = costed.structure, plan.portfolio.outputs
    feeder = PlanFeeder(
        structure.prompts,
        structure.tree,
        structure.lengths,
        candidate.fed,
        wanted=np.ones(len(structure.prompts), dtype=np.bool_),
        pool_tokens=costed.pool.tokens,
        paced=candidate.paced,
    )
    run_plan = candidate_plan(costed, candidate, feeder)
    if ours:
        asked = scheduler_settings(run_plan, steps=path, estimates=None, occupancy=path)
        # The tunnel keeps a log of its own, and no request has a grammar.
        scheduler = msgspec.structs.replace(asked, step_log=None, dead_ends=False)
    else:
        scheduler = SchedulerSettings(gate=False, dead_ends=False, occupancy=str(path))
    depth = run_plan.queue_depth if ours else _STOCK_DEPTH
    feed = LiveFeed(structure.prompts, feeder, outputs, depth, Occupancy.create(path), ours, listener)
    longest = int((structure.prompts.prompt_tokens + outputs).max())
    settings = TunnelSettings(
        pool_tokens=costed.pool.tokens,
        context_length=longest + _SPARE_CONTEXT,
        max_running=costed.limits.max_running,
        chunk=costed.chunk,
        overlap=candidate.overlap.value,
        scheduler=scheduler,
    )
    return feed, settings


def _round(plan: Plan, candidate: Candidate, ours: bool, log: TunnelLog) -> TunnelRound:
    rows = log.steps[:, ROWS]
    cpu = dict(log.cpu_seconds)
    # All of the thread's time, of which the parts are.
    whole = cpu.pop("all", 0.0)
    return TunnelRound(
        order=candidate.order,
        overlap=candidate.overlap,
        ours=ours,
        planned=candidate.outcome,
        seconds=float(step_prices(log.steps, plan.portfolio.step, candidate.overlap).sum()),
        steps=len(log.steps),
        hit_tokens=log.hit_tokens,
        recomputed_tokens=log.recomputed_tokens,
        prefill_tokens=int(log.steps[:, PREFILL].sum()),
        retractions=log.retractions,
        rows=float(rows[rows > 0].mean()) if (rows > 0).any() else 0.0,
        peak_rows=int(rows.max(initial=0)),
        cpu={"scheduler": whole - sum(cpu.values()), **cpu},
        notes=log.notes,
    )


@dataclass(slots=True)
class LiveFeed:
    """The feeder of a run at one end of a tunnel, by the rule that `runner.dispatch` goes by.

    outputs: i64 (M,), how long the answers really are. depth: requests of each side that wait in the engine.
    occupancy: what runs there, by the scheduler's word. planned: whether the hooks are told of the plan.
    """

    prompts: Prompts
    feeder: PlanFeeder
    outputs: NDArray[np.int64]
    depth: int
    occupancy: Occupancy
    planned: bool
    listener: Listener
    _flights: dict[int, QueuedRequest] = field(default_factory=dict)
    _inside: list[int] = field(default_factory=lambda: [0, 0])
    _ended: int = 0

    def __call__(self, poll: Poll) -> list[TunnelRequest] | None:
        for number in poll.ended:
            queued = self._flights.pop(number)
            self._inside[queued.side] -= 1
            self.feeder.ended(queued)
        self._ended += len(poll.ended)
        self.listener(Progress(self._ended, len(self.prompts), "requests"))
        running = self.occupancy.running
        fed: list[TunnelRequest] = []
        while (found := self._next(running)) is not None:
            self._flights[found.prompt] = found
            self._inside[found.side] += 1
            fed.append(self._request(found))
        return fed if self._flights else None

    def _next(self, running: tuple[float, float]) -> QueuedRequest | None:
        waiting = (self._inside[LEFT] - running[LEFT], self._inside[RIGHT] - running[RIGHT])
        feeder = self.feeder
        side = side_to_feed(waiting, self.depth, sided=feeder.sided, right_short=feeder.right_short)
        return None if side is None else feeder.take(side)

    def _request(self, queued: QueuedRequest) -> TunnelRequest:
        prompts, number = self.prompts, queued.prompt
        plan = Planned(queued.index, queued.output, queued.reuse, queued.tokens, queued.turn) if self.planned else None
        return TunnelRequest(
            number=number,
            ids=prompt_ids(prompts, number).tobytes(),
            output=int(self.outputs[number]),
            bound=int(prompts.bound[number]),
            known=bool(prompts.known[number]),
            key=str(prompts.root[number]),
            plan=plan,
        )


def prompt_ids(prompts: Prompts, number: int) -> NDArray[np.int64]:
    """Token ids that share prefixes as the prompt's units do: i64 (prompt_tokens,).

    What has no unit is shared with nobody.
    """
    units = np.asarray(prompts.units[prompts.offsets[number] : prompts.offsets[number + 1]], dtype=np.int64)
    each, length = prompts.unit_tokens, int(prompts.prompt_tokens[number])
    ids = (units[:, None] * each + np.arange(each)).ravel()[:length]
    # Above all units.
    own = (1 << 40) + (number << 20) + np.arange(length - len(ids))
    return np.concatenate((ids, own))
