"""Between plan and engine while a job runs: hands requests over, takes results, learns from them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from blendrun.blend.base import LEFT, RIGHT
from blendrun.endpoints.promises import promise_of
from blendrun.engine.base import Engine, EngineInfo, Planned, Result, SchedulerSettings, WorkItem, step_budget
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.threads import in_thread
from blendrun.engine.window import Window, side_to_feed
from blendrun.errors import BlendrunError
from blendrun.events import Listener, Note
from blendrun.jobs.job import Job
from blendrun.planner.feeder import QueuedRequest
from blendrun.planner.run_plan import Learning, RunPlan
from blendrun.runner.deadline import Deadline
from blendrun.runner.flight import Asked, Flight
from blendrun.runner.remaining import work_of
from blendrun.store.records import Records
from blendrun.store.steps import StepTail

# A new plan at most so often, in seconds, and never for more than a small share of the time.
_LEARN_SECONDS = 5.0
_LEARN_SHARE = 0.05
# Some seconds, but for the first ones: a short run is to be seen, too.
_FIRST_TICK_SECONDS, _TICK_SECONDS = 0.25, 2.0
# Lengths are learned on when all is handed over, where they are so few.
_MOST_LEARNED_LATE = 20_000
# How often the engine's word on what runs in it is looked at, while it has enough.
_LOOK_SECONDS = 0.005
# Of several replicas, each has no more than this part of its requests in its engine's queue, or this many.
_QUEUED_PART, _LEAST_QUEUED = 8, 16
# Requests that are put aside for want of time; with so many of them there is no use in looking for shorter ones.
_MOST_HELD = 10_000


class Receiver(Protocol):
    """Whom results are for."""

    def receive(self, result: Result, asked: Asked) -> None:
        """A request has come back, answered or not."""

    def show_progress(self) -> None:
        """Some seconds have passed, with or without a result."""


@dataclass(slots=True)
class Dispatcher:
    """One engine, one plan, and what is found for it when that is fed.

    more: asked for another plan then, which may be none. listener: told what went wrong beside the job and, with
    `stats`, how the engine is, where it logs its steps. stopping: whether no more is to be handed over. steps: the
    engine's log of its steps, if any. estimates: where the scheduler reads corrected lengths, if it does. occupancy:
    where it says what runs, if it does. deadline: by which all must be answered. handed_over: whether the engine was
    told that no more will come.
    """

    job: Job
    plan: RunPlan
    engine: Engine
    info: EngineInfo
    records: Records
    steps: StepTail | None
    estimates: Estimates | None
    receiver: Receiver
    listener: Listener
    stopping: Callable[[], bool]
    more: Callable[[], Awaitable[RunPlan | None]] | None = None
    occupancy: Occupancy | None = None
    deadline: Deadline | None = None
    stats: bool = True
    flights: dict[int, Flight] = field(default_factory=dict)
    answered: int = 0
    handed_over: bool = False
    _source: RunPlan = field(init=False)
    _depth: int = field(init=False)
    # Of the flights, by side of the blend.
    _inside: list[int] = field(default_factory=lambda: [0, 0])
    # Prompt and output tokens of what is answered.
    _done: list[int] = field(default_factory=lambda: [0, 0])
    _fed: int = 0
    _fed_before: int = 0
    _held: list[QueuedRequest] = field(default_factory=list)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._source = self.plan
        self._depth = self.plan.queue_depth if self.info.queue is None else self.info.queue
        if self.more is not None:
            # What is handed over is nobody else's any more.
            self._depth = min(self._depth, max(self.plan.feeder.unfed // _QUEUED_PART, _LEAST_QUEUED))

    async def run(self) -> None:
        """Until everything handed over has come back. Raises EngineUnavailableError when the engine dies."""
        await self._fit_pool(self.plan)
        window = Window(self.info.max_running + 2 * self._depth)
        beside = [asyncio.ensure_future(self._tick())]
        if self.plan.learning is not None:
            beside.append(asyncio.ensure_future(self._learn(self.plan.learning)))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._submit(window))
                group.create_task(self._collect(window))
        except BaseExceptionGroup as errors:
            # One side failing ends the other; the first failure is the reason.
            raise errors.exceptions[0] from None
        finally:
            for task in beside:
                task.cancel()
        # Others may work on: of this engine nothing is left.
        self._tell_work()

    async def _fit_pool(self, plan: RunPlan) -> None:
        """Go by the pool that the engine has, which is known only now. Cutting a blend anew may take seconds."""
        planned, fitted = plan.costed, await in_thread(plan.fitted, self.info.kv_tokens)
        if planned is None or fitted is None:
            return
        plan.fit(fitted)
        if fitted.blend is not planned.blend:
            sizes = f"{fitted.pool.tokens:,} tokens, not the {planned.pool.tokens:,} that were planned with"
            self.listener(Note(f"the engine's pool holds {sizes}: blended anew"))

    async def _submit(self, window: Window) -> None:
        while (side := await self._side(window)) is not None and (queued := await self._next(window, side)) is not None:
            request = self.job.request(queued.row)
            plan = None
            if queued.prompt >= 0:
                plan = Planned(queued.index, queued.output, queued.reuse, queued.tokens, queued.turn)
            body = orjson.dumps(request.body)
            item = WorkItem(queued.row, request.endpoint.url, body, _stated_length(request.extra), plan)
            await window.enter(len(body))
            self._inside[queued.side] += 1
            asked = Asked(request.custom_id, promise_of(request.body), request.spoken)
            self.flights[queued.row] = Flight(queued, self._source, asked, self.records.now(), len(body))
            await self.engine.submit(item)
        await self.engine.close_input()
        self.handed_over = True

    async def _side(self, window: Window) -> int | None:
        """The side of a blend that one more request is wanted of, as soon as one is; None when the run is to stop."""
        while not self.stopping():
            side = self._wanted()
            if side is not None and not window.full:
                return side
            await window.change(1.0 if self._running is None else _LOOK_SECONDS)
        return None

    def _wanted(self) -> int | None:
        """The side that one more request is wanted of now; None where enough wait in the engine."""
        feeder = self._source.feeder
        return side_to_feed(self._waiting(), self._depth, sided=self._sided, right_short=feeder.right_short)

    @property
    def _running(self) -> tuple[float, float] | None:
        """Requests of each side that run in the engine; None where it does not say."""
        return None if self.occupancy is None or self.occupancy.lost else self.occupancy.running

    @property
    def _sided(self) -> bool:
        """Whether the engine chooses between a blend's sides: where nothing says what runs, the feeder does."""
        return self._running is not None and self._source.feeder.sided

    def _waiting(self) -> tuple[float, float]:
        """Requests of each side that the engine has and has not admitted; by what is expected where it does not say."""
        if (running := self._running) is None:
            beyond = len(self.flights) - self.engine.fetching - self.info.max_running
            guessed = self._source.feeder.waiting
            return (max(guessed, beyond) if guessed > 0 else beyond), 0.0
        left, right = running
        # What is being fetched is no engine's yet.
        return self._inside[LEFT] - left - self.engine.fetching, self._inside[RIGHT] - right

    async def _next(self, window: Window, side: int) -> QueuedRequest | None:
        """What to hand over now; None when there is nothing left."""
        while (queued := await self._of_source(window, side)) is None:
            if self._held or self.more is None:
                return None
            # What waits in the engine's queue comes first: others may be without work sooner.
            while sum(self._waiting()) > 0 and not self.stopping():
                await window.change(_LOOK_SECONDS)
            if (plan := await self.more()) is None:
                return None
            await self._fit_pool(plan)
            self._source, self._fed_before = plan, self._fed
        return queued

    def _take(self, side: int) -> QueuedRequest | None:
        """The next one of the plan that is being fed. Places go on counting from one plan to the next."""
        queued = self._source.feeder.take(side if self._sided else None)
        if queued is None:
            return None
        self._fed += 1
        return replace(queued, index=self._fed_before + queued.index) if self._fed_before else queued

    async def _of_source(self, window: Window, side: int) -> QueuedRequest | None:
        """The next one of that plan; with a deadline, the next one that will be done by then."""
        if self.deadline is None:
            return self._take(side)
        while len(self._held) < _MOST_HELD and (queued := self._take(side)) is not None:
            if self.deadline.fits(queued.output):
                return queued
            self._held.append(queued)
            # The feeder never waits, and answers come in meanwhile.
            await asyncio.sleep(0)
        while self._held and not self.stopping():
            # What seemed too long beside others may fit by the pace of now.
            for queued in self._held:
                if self.deadline.fits(queued.output):
                    self._held.remove(queued)
                    return queued
            if not self.flights:
                return None
            await window.change()
        return None

    @property
    def held(self) -> int:
        """Requests that were not handed over because of the deadline."""
        return len(self._held)

    async def _collect(self, window: Window) -> None:
        async for result in self.engine.results():
            flight = self.flights.pop(result.row)
            self._inside[flight.queued.side] -= 1
            self.answered += 1
            # Before anything is waited for: this answer is there, and the run may be ended meanwhile.
            self.receiver.receive(result, flight.asked)
            await window.leave(flight.size)
            if result.error_code is None:
                self._done = [self._done[0] + result.usage.prompt, self._done[1] + result.usage.output]
            if self.deadline is not None:
                self.deadline.ended(result.usage.output, self.records.now() - flight.submitted)
            flight.plan.feeder.ended(flight.queued)
            if self.steps is not None:
                self.steps.forget(flight.queued)
            learning = flight.plan.learning
            if learning is not None and flight.queued.prompt >= 0 and result.error_code is None:
                learning.learner.ended(flight.queued.prompt, result.usage.output)
            self.records.add(flight.asked.custom_id, flight.queued, result, flight.submitted)

    async def _learn(self, learning: Learning) -> None:
        """Plan again by what was seen, in a thread: requests are handed over meanwhile by the plan there is."""
        loop, seen, pause = asyncio.get_running_loop(), 0, _LEARN_SECONDS
        while True:
            await asyncio.sleep(pause)
            feeding = learning.feeder.unfed > 0
            if self.answered == seen or not (feeding or len(learning.learner.prompts) <= _MOST_LEARNED_LATE):
                continue
            seen, begun = self.answered, loop.time()
            async with self._reading:
                await self._read_steps()
                own = (each.queued for each in self.flights.values() if each.plan is self.plan)
                running = self.steps.answered(own) if self.steps else {}
            try:
                if feeding:
                    found = await in_thread(learning.plan_again, learning.learner.samples(running))
                else:
                    # There is nothing to feed otherwise; the time that is left goes by it.
                    found, lengths = None, await in_thread(learning.learner.learn_running, running)
                    learning.feeder.expect(lengths)
            except BlendrunError as error:
                self.listener(Note(f"lengths are learned no further: {error}", warning=True))
                return
            if found is not None:
                learning.feeder.replan(*found)
                self._correct(learning)
            pause = max(_LEARN_SECONDS, (loop.time() - begun) / _LEARN_SHARE)

    def _correct(self, learning: Learning) -> None:
        """Tell the scheduler what is now expected of the requests that it has."""
        if self.estimates is None:
            return
        for flight in self.flights.values():
            if flight.queued.prompt >= 0 and flight.plan is self.plan:
                self.estimates.correct(flight.queued.index, learning.feeder.expected(flight.queued.prompt))

    async def _tick(self) -> None:
        pause = _FIRST_TICK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _TICK_SECONDS)
            self.receiver.show_progress()
            self.records.flush()
            if not self.stats:
                continue
            async with self._reading:
                await self._read_steps()
                if self.steps is not None and (stats := self.steps.stats(self.info.kv_tokens)) is not None:
                    self.listener(stats)
                self._tell_work()

    def _tell_work(self) -> None:
        work = work_of(self._source, self.flights.values(), self.steps, self._done) if self.stats else None
        if work is not None:
            self.listener(work)

    async def _read_steps(self) -> None:
        """For one reader at a time: two would count the same lines."""
        if self.steps is not None:
            await in_thread(self.steps.read)


def scheduler_settings(
    plan: RunPlan, *, steps: Path, estimates: Path | None, occupancy: Path | None
) -> SchedulerSettings:
    """What the scheduler plug-in has to do for a plan. steps, estimates, occupancy: files that it writes and reads."""
    return SchedulerSettings(
        budget=None if plan.budget is None else step_budget(plan.budget),
        reserve=plan.reserve,
        next_use=plan.planned,
        plan_order=plan.planned,
        # Where the runner is not told what runs, it chooses the side itself.
        sides=plan.feeder.sided and occupancy is not None,
        occupancy=None if occupancy is None else str(occupancy.absolute()),
        step_log=str(steps.absolute()),
        estimates=None if estimates is None else str(estimates.absolute()),
    )


def _stated_length(extra: dict[str, Any]) -> int | None:
    """Output tokens that the line's metadata states, for the replay engine."""
    metadata = extra.get("metadata")
    length = metadata.get("reference_output_tokens") if isinstance(metadata, dict) else None
    return length if isinstance(length, int) and length > 0 else None
