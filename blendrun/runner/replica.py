"""One replica: an engine at work on its share of a job, and another one after it where it dies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from blendrun.engine.base import Engine, EngineInfo, Result
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.errors import EngineUnavailableError, ErrorCode
from blendrun.events import Listener, Note, PhaseStarted
from blendrun.jobs.job import Job
from blendrun.learned.sample import StepSample
from blendrun.learned.starts import NO_STARTS, Starting, Starts
from blendrun.names import OrderName
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.deadline import Deadline
from blendrun.runner.dispatch import Dispatcher, Receiver
from blendrun.runner.flight import Asked
from blendrun.runner.liveness import Liveness
from blendrun.runner.order import plan_rows
from blendrun.runner.recovery import Recovery
from blendrun.runner.work_stealing import WorkPool
from blendrun.simulate.price import StepPrice
from blendrun.store.folder import StateFolder
from blendrun.store.records import Records
from blendrun.store.steps import StepTail
from blendrun.store.summary import Restart, Stopwatch
from blendrun.text import plural

_LOOK_SECONDS = 1.0
_T = TypeVar("_T")

# Makes an engine for a plan, made smaller that many times.
MakeEngine = Callable[[StateFolder, RunPlan, int], Engine]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, but for `restarts`: after how many deaths of the engine the run gives up.

    drain: that requests in flight may take after a stop. stall: without a sign of life, after which an engine counts
    as hung; load: the same while it comes up, when it may be silent for long; None waits for ever. deadline: seconds of
    `time.monotonic`, when the command is to be gone; None for none. closing: that ending an engine and writing the
    files may take behind the last answer.
    """

    restarts: int = 3
    drain: float = 20.0
    stall: float | None = None
    load: float | None = None
    deadline: float | None = None
    closing: float = 5.0


class Owner(Receiver, Protocol):
    """Whose job it is that replicas work on."""

    def remember(self, plan: RunPlan) -> None:
        """A plan has been fed as far as it will be."""

    def took_steps(self, sample: StepSample) -> None:
        """An engine is done, or has died; these are steps that it took."""

    def died(self, restart: Restart) -> None:
        """An engine has died."""


@dataclass(slots=True)
class Replica:
    """number: from 1. state: paths, with files of the replica's own. plan: what it begins with; what comes then is the
    pool's. listener: told the phases of this replica (load, run, isolate), its notes and how its engine is.

    price: what the plan's model says of a step. starts: how long such an engine took to come up before. info: of its
    engine, once one is up. ready: whether it can be drained.
    """

    number: int
    job: Job
    state: StateFolder
    patience: Patience
    plan: RunPlan
    pool: WorkPool
    make_engine: MakeEngine
    stopping: Callable[[], bool]
    owner: Owner
    listener: Listener
    stopwatch: Stopwatch
    deadline: Deadline | None = None
    price: StepPrice | None = None
    starts: Starts = NO_STARTS
    info: EngineInfo | None = None
    ready: bool = False
    _dispatcher: Dispatcher | None = None
    _engine: Engine | None = None
    _died: bool = False
    _begun: float = field(default_factory=time.monotonic)
    _recovery: Recovery = field(init=False)
    _signs: Liveness = field(init=False)

    def __post_init__(self) -> None:
        self._recovery = Recovery(self.patience.restarts)

    @property
    def held(self) -> int:
        """Requests that would end behind the deadline, and were not begun."""
        return self._dispatcher.held if self._dispatcher is not None else 0

    @property
    def in_flight(self) -> int:
        return len(self._dispatcher.flights) if self._dispatcher is not None else 0

    async def stop_engine(self) -> None:
        if self._engine is not None:
            await self._engine.stop()

    async def run(self) -> None:
        """Until nothing is left for it or a stop was asked for.

        Raises EngineUnavailableError where restarts do not help; what it had is given back by then.
        """
        recovery = self._recovery
        plan: RunPlan | None = self.plan if self.plan.feeder.unfed else None
        while not self.stopping():
            recovery.keep(self.pool.unfinished().tolist() if recovery.groups else ())
            if plan is None and not recovery.groups and (plan := await self.pool.more(self.number)) is None:
                return
            suspects = np.array([row for group in recovery.groups for row in group], dtype=np.int64)
            first = plan if plan is not None else plan_rows(suspects, OrderName.GIVEN, self.plan.overlap)
            estimates, occupancy = self._estimates(first), self._occupancy()
            self._engine = engine = self.make_engine(self.state, first, recovery.shrinks)
            try:
                await self._serve(engine, plan, estimates, occupancy)
                return
            except EngineUnavailableError as error:
                self._set_ready(False)
                # A scheduler signals every process of a job: an engine that dies now was told to stop as we were.
                if not self.stopping():
                    self._recover(error)
                plan = None
            finally:
                self._set_ready(False)
                await engine.stop()
                _forget(self.state.occupancy)

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        self.pool.up(self.number, ready)

    def receive(self, result: Result, asked: Asked) -> None:
        """A result is a sign of life; an answer speaks for the engine, too."""
        self._signs.seen()
        if result.error_code is None:
            self._recovery.answered()
        self.owner.receive(result, asked)

    def show_progress(self) -> None:
        """The owner knows how far all of them are."""
        self.owner.show_progress()

    async def _serve(
        self, engine: Engine, plan: RunPlan | None, estimates: Estimates | None, occupancy: Occupancy | None
    ) -> None:
        """One engine's life."""
        recovery = self._recovery
        self._signs = Liveness(self.state.engine_log, self.state.steps)
        steps = StepTail(self.state.steps, self.price)
        self._dispatcher = None
        with self.stopwatch.phase("load"):
            starting = Starting(self.listener, self.starts, self.state.engine_log)
            starting(PhaseStarted("load", "engine"))

            def needless() -> bool:
                starting.look()
                self.owner.show_progress()
                return not len(self.pool.unfinished())

            info = await self._while_alive(
                engine.start(starting), self.patience.load, "did not start", needless=needless
            )
        if info is None:
            # The others have answered everything meanwhile.
            return
        self.info = info
        starting.ready()
        if not info.tells_running:
            occupancy = None
        self._set_ready(True)
        for note in info.notes:
            self.listener(Note(note, warning=True))
        records = Records(self.state.records, replica=self.number)
        with self.stopwatch.phase("run"):
            try:
                while recovery.groups and not self.stopping():
                    rows = np.array(recovery.groups[0], dtype=np.int64)
                    what = f"{plural(len(rows), 'request')}, in flight when the engine died"
                    self.listener(PhaseStarted("isolate", what))
                    group = plan_rows(rows, OrderName.GIVEN, self.plan.overlap)
                    await self._feed(engine, group, None, occupancy, records, steps, last=False)
                    recovery.survived()
                if plan is None and (plan := await self.pool.more(self.number)) is None:
                    return
                what = f"{plural(plan.feeder.unfed, 'request')}, {info.max_running:,} at once, order {plan.order}"
                self.listener(PhaseStarted("run", what))
                await self._feed(engine, plan, estimates, occupancy, records, steps, last=True)
            finally:
                records.close()
                steps.finish()
                self.owner.took_steps(steps.sample)
                if plan is not None:
                    self.owner.remember(plan)

    async def _feed(
        self,
        engine: Engine,
        plan: RunPlan,
        estimates: Estimates | None,
        occupancy: Occupancy | None,
        records: Records,
        steps: StepTail,
        *,
        last: bool,
    ) -> None:
        """last: whether it goes on with what others leave."""
        assert self.info is not None, "fed before start"
        self._dispatcher = dispatcher = Dispatcher(
            job=self.job,
            plan=plan,
            engine=engine,
            info=self.info,
            records=records,
            steps=steps,
            estimates=estimates,
            occupancy=occupancy,
            receiver=self,
            listener=self.listener,
            stopping=self.stopping,
            more=partial(self.pool.more, self.number) if last and self.pool.several else None,
            deadline=self.deadline,
        )
        self._signs.seen()

        def idle() -> bool:
            # Nothing to do: all answered while more may come, or what is not waits for something else.
            busy = len(dispatcher.flights) > engine.fetching
            return not busy and not (dispatcher.handed_over and not dispatcher.flights)

        await self._while_alive(dispatcher.run(), self.patience.stall, "is hung", idle)

    async def _while_alive(
        self,
        work: Coroutine[object, object, _T],
        stall: float | None,
        what: str,
        idle: Callable[[], bool] = lambda: False,
        needless: Callable[[], bool] = lambda: False,
    ) -> _T | None:
        """The result of `work`; None where it was ended as needless.

        Raises EngineUnavailableError after `stall` seconds without a sign of life.
        """
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((task,), timeout=_LOOK_SECONDS))[0]:
                if needless():
                    return None
                if idle():
                    self._signs.seen()
                if stall is not None and (silence := self._signs.silence()) > stall:
                    raise EngineUnavailableError(f"the engine {what}: no sign of life for {silence:.0f} s")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def _estimates(self, plan: RunPlan) -> Estimates | None:
        """Before the engine starts, which opens the file. Without one the plan's first expectations stand."""
        _forget(self.state.estimates)
        if plan.learning is None:
            return None
        try:
            return Estimates.create(self.state.estimates, plan.feeder.unfed)
        except (OSError, ValueError):
            _forget(self.state.estimates)
            return None

    def _occupancy(self) -> Occupancy | None:
        """Before the engine starts, which opens the file. Without one the plan's own guess at what runs stands."""
        try:
            return Occupancy.create(self.state.occupancy)
        except (OSError, ValueError):
            _forget(self.state.occupancy)
            return None

    def _recover(self, error: EngineUnavailableError) -> None:
        """Decide how to go on after a death. Raises `error` where there is no way on."""
        recovery = self._recovery
        flights = {} if self._dispatcher is None else self._dispatcher.flights
        passing = error.out_of_memory or error.machine_lost
        if self._dispatcher is None and not self._died and not passing and self.info is None:
            # It never came up: the next one would not either.
            self.pool.give_back(self.number)
            raise error
        self._died = True
        blamed = recovery.died(flights, out_of_memory=error.out_of_memory, machine_lost=error.machine_lost)
        reason = _reason(str(error))
        seconds = time.monotonic() - self._begun
        self.owner.died(Restart(reason, round(seconds, 3), len(flights), recovery.shrinks, self.number))
        if recovery.given_up:
            self._dispatcher = None
            self.pool.give_back(self.number)
            raise error
        if blamed is not None:
            message = f"this request ends the engine, alone too: {reason}"
            result = Result(blamed, 500, b"", error_code=str(ErrorCode.ENGINE_ERROR), error_message=message)
            self.owner.receive(result, flights[blamed].asked)
        self._dispatcher = None
        self.pool.give_back(self.number, keep=[row for group in recovery.groups for row in group])
        self.listener(Note(self._sentence(reason, blamed), warning=True))

    def _sentence(self, reason: str, blamed: int | None) -> str:
        recovery = self._recovery
        if blamed is not None:
            return f"the engine died of one request, now an error line; it starts again ({reason})"
        if recovery.groups:
            suspects = sum(map(len, recovery.groups))
            apart = f"{plural(suspects, 'request')} that may be the reason apart"
            return f"the engine died; it starts again, {apart} ({reason})"
        size = " smaller" if recovery.shrinks else ""
        return f"the engine died; it starts again{size}, {recovery.used} of {recovery.most} restarts used ({reason})"


def _forget(path: Path) -> None:
    """Remove a file that only this engine needs; one that cannot be removed is in nobody's way."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _reason(text: str) -> str:
    """One line of an engine's last words: the last exception that its log shows, else the first line."""
    said = re.findall(r"^\s*(?:\| )?\s*(?:\S*\.)?(\w*(?:Error|Exception|Interrupt)\b: .+)$", text, re.MULTILINE)
    return (said[-1] if said else text.partition(". The end of")[0])[:300].strip()
