"""Keeps replicas at work until all is answered: starts them, stops them when told to, tells how they are."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.base import EngineInfo
from blendrun.errors import BlendrunError, DrainedError, EngineUnavailableError
from blendrun.events import EngineStats, Event, Listener, Note, PhaseStarted, Work
from blendrun.jobs.job import Job
from blendrun.learned.starts import NO_STARTS, Starts
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.deadline import Deadline
from blendrun.runner.engine_stats import CombinedStats
from blendrun.runner.replica import MakeEngine, Owner, Patience, Replica
from blendrun.runner.stop import stop_error, stop_signals
from blendrun.runner.work_stealing import WorkPool
from blendrun.simulate.price import StepPrice
from blendrun.store.folder import StateFolder
from blendrun.store.summary import Stopwatch
from blendrun.text import plural


@dataclass(slots=True)
class Supervisor:
    """One job on one or several replicas.

    plans: what each of them begins with; what is given back is planned by make_plan. reserve: for those who are done
    first. unfinished: all rows without an answer. price, starts: see `Replica`. stopped: why the run ends before all is
    answered.
    """

    job: Job
    state: StateFolder
    patience: Patience
    plans: Sequence[RunPlan]
    unfinished: Callable[[], NDArray[np.int64]]
    make_plan: Callable[[NDArray[np.int64]], RunPlan]
    make_engine: MakeEngine
    owner: Owner
    listener: Listener
    stopwatch: Stopwatch
    reserve: RunPlan | None = None
    stopped: BlendrunError | None = None
    deadline: Deadline | None = None
    price: StepPrice | None = None
    starts: Starts = NO_STARTS
    _replicas: list[Replica] = field(default_factory=list)
    _working: int = 0
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _stats: CombinedStats = field(default_factory=CombinedStats)
    _work: asyncio.Future[None] | None = None
    _drain: asyncio.TimerHandle | None = None

    @property
    def info(self) -> EngineInfo | None:
        """Of the first engine that came up: they are alike."""
        return next((replica.info for replica in self._replicas if replica.info is not None), None)

    @property
    def held(self) -> int:
        """Requests that would end behind the deadline, and were not begun."""
        return sum(replica.held for replica in self._replicas)

    @property
    def in_flight(self) -> int:
        return sum(replica.in_flight for replica in self._replicas)

    async def run(self) -> None:
        """Until nothing is left or a stop was asked for. Raises EngineUnavailableError where restarts do not help."""
        if self.patience.deadline is not None:
            self.deadline = Deadline(self.patience.deadline - self.patience.closing)
        self._replicas = self._make()
        self._working = len(self._replicas)
        self._work = asyncio.ensure_future(self._all())
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        if self.deadline is not None:
            left = self.deadline.end - self.patience.drain - time.monotonic()
            loop.call_later(max(left, 0.0), self._on_deadline)
        try:
            await self._work
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
        finally:
            if self._drain is not None:
                # All that was in flight is answered: engines have the time that they need to end.
                self._drain.cancel()
            # The end of a drain may have cut the first stops short.
            await asyncio.gather(*(replica.stop_engine() for replica in self._replicas))

    def stop(self, reason: BlendrunError, what: str) -> None:
        """Admit nothing more and drain; a second call, or one before an engine is up, ends it at once."""
        assert self._work is not None, "stop before run"
        if self.stopped is not None or not any(replica.ready for replica in self._replicas):
            self.stopped = self.stopped or reason
            self._work.cancel()
            return
        self.stopped = reason
        seconds = self.patience.drain
        self.listener(PhaseStarted("drain", what, seconds))
        self.listener(Note(self._stopping(what, seconds)))
        self._drain = asyncio.get_running_loop().call_later(seconds, self._work.cancel)
        for replica in self._replicas:
            if not replica.ready:
                # It loads, or waits for work: there is nothing to drain.
                self._tasks[replica.number].cancel()

    def _stopping(self, what: str, seconds: float) -> str:
        """What a person is told of a drain: how long it may take, and how not to wait for it."""
        expected = self._stats.in_flight
        most = seconds if expected is None else min(seconds, math.ceil(expected[1]))
        again = {"SIGINT": "Ctrl-C again stops now", "deadline": ""}.get(what, "a second signal stops now")
        flight = plural(self.in_flight, "request")
        return f"stopping ({what}): up to {most:g} s for {flight} in flight{again and '; '}{again}"

    def _on_signal(self, number: int) -> None:
        self.stop(stop_error(number), signal.Signals(number).name)

    def _on_deadline(self) -> None:
        # A signal that came before it is the reason.
        if self.stopped is None:
            self.stop(DrainedError("the deadline has come"), "deadline")

    def _make(self) -> list[Replica]:
        def stopping() -> bool:
            return self.stopped is not None

        pool = WorkPool(len(self.job), self.make_plan, self.unfinished, stopping)
        pool.begin(self.plans, self.reserve)
        return [
            Replica(
                number=number,
                job=self.job,
                state=self.state.of_replica(number),
                patience=self.patience,
                plan=plan,
                pool=pool,
                make_engine=self.make_engine,
                stopping=stopping,
                owner=self.owner,
                listener=partial(self._hear, number),
                stopwatch=self.stopwatch,
                deadline=self.deadline,
                price=self.price,
                starts=self.starts,
            )
            for number, plan in enumerate(self.plans, start=1)
        ]

    async def _all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for replica in self._replicas:
                    self._tasks[replica.number] = group.create_task(self._run(replica))
        except BaseExceptionGroup as errors:
            # One failure ends the others; the first one is the reason.
            raise errors.exceptions[0] from None

    async def _run(self, replica: Replica) -> None:
        """Raises EngineUnavailableError where it was the last one."""
        try:
            await replica.run()
        except EngineUnavailableError as error:
            if self._working == 1:
                raise
            reason = str(error).partition("\n")[0]
            text = f"replica {replica.number} is given up, the others go on with its requests: {reason}"
            self.listener(Note(text, warning=True))
        finally:
            self._working -= 1
            replica.pool.leave(replica.number)

    def _hear(self, replica: int, event: Event) -> None:
        """What a replica tells, as it stands among the others."""
        if isinstance(event, EngineStats):
            event = self._stats.combine(replica, event)
        elif isinstance(event, Work):
            event = self._stats.combine_work(replica, event)
        elif isinstance(event, PhaseStarted) and len(self.plans) > 1:
            ready = sum(each.ready for each in self._replicas)
            if event.name == "load":
                if ready:
                    # The job is being run; that one more comes up is no step back.
                    return
                event = replace(event, detail=f"replica {replica}: {event.detail}")
            elif self.stopped is not None:
                # It drains, whoever still begins.
                return
            else:
                what = f"{ready} of {len(self.plans)} replicas; replica {replica}: {event.detail}"
                event = PhaseStarted("run", what)
        self.listener(event)
