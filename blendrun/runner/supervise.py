"""Keeps an engine at work until all is answered: starts it, watches it, starts it again, stops it when told to."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import OrderName
from blendrun.engine.base import Engine, EngineInfo, Result
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.errors import BlendrunError, DrainedError, EngineUnavailableError, ErrorCode
from blendrun.jobs import Job
from blendrun.planner.feed import RunPlan
from blendrun.runner.deadline import Deadline
from blendrun.runner.events import PhaseStarted, Watch
from blendrun.runner.feeding import Feeding
from blendrun.runner.life import LifeSigns
from blendrun.runner.order import plan_rows
from blendrun.runner.records import Records
from blendrun.runner.recovery import Recovery, Restart
from blendrun.runner.state import StateFolder
from blendrun.runner.steps import StepTail
from blendrun.runner.stop import STOP_SIGNALS, stop_error
from blendrun.runner.summary import Stopwatch
from blendrun.runner.threads import in_thread

# Seconds that ending an engine and writing the files may take behind the last answer.
_AFTER_DRAIN_S = 5.0
_LOOK_SECONDS = 1.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, but for `restarts`: after how many deaths of the engine the run gives up.

    drain: that requests in flight may take after a stop. stall: without a sign of life, after which an engine counts
    as hung; load: the same while it comes up, when it may be silent for long; None waits for ever. deadline: seconds of
    `time.monotonic`, when the command is to be gone; None for none.
    """

    restarts: int = 3
    drain: float = 20.0
    stall: float | None = None
    load: float | None = None
    deadline: float | None = None


# Makes an engine for a plan, made smaller that many times.
MakeEngine = Callable[[StateFolder, RunPlan, int], Engine]


@dataclass(slots=True)
class Supervisor:
    """One job, one engine after the other.

    plan: of all rows without an answer, for the first engine; later ones get one by make_plan. unfinished: those rows.
    on_result, on_note: told what came back and what a person should read (and whether it is a warning). stopped: why
    the run ends before all is answered.
    """

    job: Job
    state: StateFolder
    patience: Patience
    plan: RunPlan
    unfinished: Callable[[], NDArray[np.int64]]
    make_plan: Callable[[NDArray[np.int64]], RunPlan]
    make_engine: MakeEngine
    on_result: Callable[[Result, str], None]
    on_tick: Callable[[], None]
    on_plan_end: Callable[[RunPlan], None]
    on_note: Callable[[str, bool], None]
    watch: Watch
    stopwatch: Stopwatch
    info: EngineInfo | None = None
    stopped: BlendrunError | None = None
    restarts: list[Restart] = field(default_factory=list)
    deadline: Deadline | None = None
    _todo: int = 0
    _ready: bool = False
    _feeding: Feeding | None = None
    _work: asyncio.Future[None] | None = None
    _engine: Engine | None = None
    _drain: asyncio.TimerHandle | None = None
    _begun: float = field(default_factory=time.monotonic)

    @property
    def held(self) -> int:
        """Requests that would end behind the deadline, and were not begun."""
        return self._feeding.held if self._feeding is not None else 0

    @property
    def in_flight(self) -> int:
        return len(self._feeding.flights) if self._feeding is not None else 0

    async def run(self) -> None:
        """Until nothing is left or a stop was asked for. Raises EngineUnavailableError where restarts do not help."""
        self._work = asyncio.ensure_future(self._engines())
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        if self.patience.deadline is not None:
            end = self.patience.deadline - _AFTER_DRAIN_S
            self.deadline = Deadline(end)
            loop.call_later(max(end - self.patience.drain - time.monotonic(), 0.0), self._on_deadline)
        try:
            await self._work
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
        finally:
            # The end of a drain may have cut the first one short.
            if self._engine is not None:
                await self._engine.stop()

    def stop(self, reason: BlendrunError, what: str) -> None:
        """Admit nothing more and drain; a second call, or one before the engine is up, ends it at once."""
        assert self._work is not None, "stop before run"
        if self.stopped is not None or not self._ready:
            self.stopped = self.stopped or reason
            self._work.cancel()
            return
        self.stopped = reason
        seconds = self.patience.drain
        self.watch(PhaseStarted("drain", what))
        self.on_note(f"{what}: finishing {self.in_flight} requests in flight, {seconds:g} s at most", False)
        self._drain = asyncio.get_running_loop().call_later(seconds, self._work.cancel)

    def _on_signal(self, number: int) -> None:
        self.stop(stop_error(number), signal.Signals(number).name)

    def _on_deadline(self) -> None:
        # A signal that came before it is the reason.
        if self.stopped is None:
            self.stop(DrainedError("the deadline has come"), "deadline")

    async def _engines(self) -> None:
        recovery = Recovery(self.patience.restarts)
        while self.stopped is None:
            unfinished = self.unfinished()
            recovery.keep(unfinished.tolist() if recovery.groups else ())
            alone = np.array([row for group in recovery.groups for row in group], dtype=np.int64)
            rows = np.setdiff1d(unfinished, alone, assume_unique=True)
            if not len(unfinished):
                return
            if self.restarts and len(rows):
                # In a thread: a signal must not wait for it.
                self.plan = await in_thread(self.make_plan, rows)
            self._todo = len(rows)
            plan = self.plan if len(rows) else plan_rows(rows, OrderName.GIVEN, self.plan.overlap)
            estimates = self._estimates(plan)
            self._engine = engine = self.make_engine(self.state, plan, recovery.shrinks)
            try:
                await self._serve(engine, plan, estimates, recovery)
                return
            except EngineUnavailableError as error:
                self._ready = False
                # A scheduler signals every process of a job: an engine that dies now was told to stop as we were.
                if self.stopped is None:
                    self._recover(error, recovery)
            finally:
                self._ready = False
                if self._drain is not None:
                    # All that was in flight is answered: the engine has the time that it needs to end.
                    self._drain.cancel()
                await engine.stop()

    async def _serve(self, engine: Engine, plan: RunPlan, estimates: Estimates | None, recovery: Recovery) -> None:
        """One engine's life."""
        signs = LifeSigns(self.state.engine_log, self.state.steps)
        steps = StepTail(self.state.steps)
        self._feeding = None
        with self.stopwatch.phase("load"):
            self.watch(PhaseStarted("load", "engine"))
            start = engine.start(lambda phase: self.watch(PhaseStarted("load", phase)))
            self.info = info = await self._while_alive(start, signs, self.patience.load, "did not start")
        self._ready = True
        for note in info.notes:
            self.on_note(note, True)
        records = Records(self.state.records)
        with self.stopwatch.phase("run"):
            try:
                while recovery.groups and self.stopped is None:
                    rows = np.array(recovery.groups[0], dtype=np.int64)
                    self.watch(PhaseStarted("isolate", f"{len(rows)} requests, in flight when the engine died"))
                    group = plan_rows(rows, OrderName.GIVEN, plan.overlap)
                    await self._feed(engine, group, None, records, steps, signs, recovery)
                    recovery.survived()
                self.watch(
                    PhaseStarted("run", f"{self._todo} requests, {info.max_running} at once, order {plan.order}")
                )
                await self._feed(engine, plan, estimates, records, steps, signs, recovery)
            finally:
                records.close()
                self.on_plan_end(plan)

    async def _feed(
        self,
        engine: Engine,
        plan: RunPlan,
        estimates: Estimates | None,
        records: Records,
        steps: StepTail,
        signs: LifeSigns,
        recovery: Recovery,
    ) -> None:
        assert self.info is not None, "fed before start"
        self._feeding = Feeding(
            job=self.job,
            plan=plan,
            engine=engine,
            info=self.info,
            records=records,
            steps=steps,
            estimates=estimates,
            on_result=self._on_result(signs, recovery),
            on_tick=self.on_tick,
            on_note=lambda text: self.on_note(text, True),
            stopping=lambda: self.stopped is not None,
            deadline=self.deadline,
            on_pulse=self.watch,
        )
        signs.seen()
        stall = self.patience.stall
        feeding = self._feeding

        def idle() -> bool:
            # Nothing to do: all answered while more may come, or what is not waits for something else.
            busy = len(feeding.flights) > engine.fetching
            return not busy and not (feeding.handed_over and not feeding.flights)

        await self._while_alive(feeding.run(), signs, stall, "is hung", idle)

    def _on_result(self, signs: LifeSigns, recovery: Recovery) -> Callable[[Result, str], None]:
        def take(result: Result, custom_id: str) -> None:
            signs.seen()
            if result.error_code is None:
                recovery.answered()
            self.on_result(result, custom_id)

        return take

    async def _while_alive(
        self,
        work: Coroutine[object, object, _T],
        signs: LifeSigns,
        stall: float | None,
        what: str,
        idle: Callable[[], bool] = lambda: False,
    ) -> _T:
        """The result of `work`. Raises EngineUnavailableError after `stall` seconds without a sign of life."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((task,), timeout=_LOOK_SECONDS))[0]:
                if idle():
                    signs.seen()
                if stall is not None and (silence := signs.silence()) > stall:
                    raise EngineUnavailableError(f"the engine {what}: no sign of life for {silence:.0f} s")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def _estimates(self, plan: RunPlan) -> Estimates | None:
        """Before the engine starts, which opens the file. Without one the plan's first expectations stand."""
        self.state.estimates.unlink(missing_ok=True)
        if plan.learning is None:
            return None
        try:
            return Estimates.create(self.state.estimates, self._todo)
        except OSError:
            self.state.estimates.unlink(missing_ok=True)
            return None

    def _recover(self, error: EngineUnavailableError, recovery: Recovery) -> None:
        """Decide how to go on after a death. Raises `error` where there is no way on."""
        flights = {} if self._feeding is None else self._feeding.flights
        if self._feeding is None and not self.restarts and not error.out_of_memory and self.info is None:
            # It never came up: the next one would not either.
            raise error
        blamed = recovery.died(flights, out_of_memory=error.out_of_memory)
        reason = _reason(str(error))
        seconds = time.monotonic() - self._begun
        self.restarts.append(Restart(reason, round(seconds, 3), len(flights), recovery.shrinks))
        if recovery.given_up:
            raise error
        if blamed is not None:
            message = f"this request ends the engine, alone too: {reason}"
            result = Result(blamed, 500, b"", error_code=str(ErrorCode.ENGINE_ERROR), error_message=message)
            self.on_result(result, flights[blamed].custom_id)
        self._feeding = None
        self.on_note(self._sentence(reason, blamed, recovery), True)

    def _sentence(self, reason: str, blamed: int | None, recovery: Recovery) -> str:
        if blamed is not None:
            return f"the engine died of one request, now an error line; it starts again ({reason})"
        if recovery.groups:
            suspects = sum(map(len, recovery.groups))
            return f"the engine died; it starts again, {suspects} requests that may be the reason apart ({reason})"
        smaller = " smaller" if recovery.shrinks else ""
        return f"the engine died; it starts again{smaller}, {recovery.used} of {recovery.most} restarts used ({reason})"


def _reason(text: str) -> str:
    """One line of an engine's last words: the last exception that its log shows, else the first line."""
    said = re.findall(r"^\s*(?:\| )?\s*(?:\S*\.)?(\w*(?:Error|Exception|Interrupt)\b: .+)$", text, re.MULTILINE)
    return (said[-1] if said else text.partition(". The end of")[0])[:300].strip()
