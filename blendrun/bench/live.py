"""The same requests on real engines, order after order: what a plan is worth on this machine."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.blend.orders import ORDERS
from blendrun.engine.base import EngineInfo, EngineSettings, Result, SchedulerSettings
from blendrun.engine.process import SglangEngine
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.settings import one_scheduler
from blendrun.events import Event, Listener, Note, PhaseStarted, Progress, ignore
from blendrun.jobs.job import Job
from blendrun.names import PLUGGED_ORDERS, LiveOrder, OrderName, Overlap
from blendrun.planner.feeder import RowFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.run_planner import RunPlanner
from blendrun.runner.dispatch import Dispatcher, scheduler_settings
from blendrun.runner.flight import Asked
from blendrun.store.records import Records
from blendrun.store.steps import StepTail

# With all that blendrun's plan does in the scheduler.
_PLANNED = (OrderName.BLENDED, LiveOrder.AUTO)
_POLICIES = (LiveOrder.DFS_WEIGHT, LiveOrder.LPM)
_LPM_WINDOW = 128
# Of a small model's engine on a CPU, with what it loads; said before several start.
_CPU_ENGINE_GB = 4


@dataclass(frozen=True, slots=True)
class Round:
    """One run of all requests. seconds: from the first one handed over to the last answer. chosen: the order that was
    run. predicted, predicted_cached: seconds and cached tokens by the plan, of blended and auto.
    """

    order: OrderName | LiveOrder
    overlap: Overlap
    repeat: int
    seconds: float
    prompt: int
    cached: int
    output: int
    failed: int
    chosen: str
    predicted: float | None
    predicted_cached: int | None


@dataclass(frozen=True, slots=True)
class LiveBench:
    """What is compared: orders, each on each overlap mode, `repeats` times in turns.

    settings: of the engines, without scheduler and overlap. folder: for logs, records and step logs.
    together: all engines live at once, so that the repeats of all orders take turns; else one engine after the other,
        for devices that hold only one.
    """

    job: Job
    planner: RunPlanner
    settings: EngineSettings
    orders: tuple[OrderName | LiveOrder, ...]
    overlaps: tuple[Overlap, ...]
    repeats: int
    folder: Path
    together: bool

    def run(self, listener: Listener) -> tuple[Round, ...]:
        """All rounds; each is told as it ends.

        Raises UsageError where a mode is refused, EngineUnavailableError when an engine dies.
        """
        bench = _Bench(self, listener)
        asyncio.run(bench.run())
        return tuple(bench.rounds)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An order on an overlap mode. settings: of its engine. rows: of an order that is not planned again each time."""

    order: OrderName | LiveOrder
    overlap: Overlap
    settings: EngineSettings
    rows: NDArray[np.int64]

    @property
    def steps(self) -> Path:
        return Path(self.settings.scheduler.step_log or "")


@dataclass(slots=True)
class _Bench:
    asked: LiveBench
    listener: Listener
    rounds: list[Round] = field(default_factory=list)

    async def run(self) -> None:
        entries = [self._entry(order, overlap) for overlap in self.asked.overlaps for order in self.asked.orders]
        groups: dict[bytes, list[_Entry]] = {}
        for entry in entries:
            groups.setdefault(_key(entry), []).append(entry)
        for batch in [entries] if self.asked.together else list(groups.values()):
            self._tell_memory(len({_key(entry) for entry in batch}))
            async with AsyncExitStack() as stack:
                engines: dict[bytes, tuple[SglangEngine, EngineInfo]] = {}
                for entry in batch:
                    if _key(entry) not in engines:
                        engines[_key(entry)] = await self._start(entry, stack)
                await self._rounds(batch, engines)

    def _tell_memory(self, engines: int) -> None:
        """Before they start, as they stay until the end."""
        if self.asked.together and engines > 1:
            each = f"about {_CPU_ENGINE_GB} GB each, {engines * _CPU_ENGINE_GB} GB in all"
            self.listener(Note(f"{engines} engines at once: {each}; fewer --orders need fewer"))

    def _entry(self, order: OrderName | LiveOrder, overlap: Overlap) -> _Entry:
        asked = self.asked
        permute = ORDERS[order].of_rows if isinstance(order, OrderName) else None
        plan = self._plan(order, overlap) if permute is None and order not in _POLICIES else None
        engine = order if order in _POLICIES else "ours" if order in PLUGGED_ORDERS else "stock"
        ours = order in _PLANNED
        arguments: dict[str, Any] = asked.settings.server_args
        name = f"{engine}-{'plan' if ours else 'rows'}-{overlap}"
        steps, occupancy = asked.folder / f"{name}.steps.jsonl", asked.folder / f"{name}.occupancy"
        if plan is not None and ours:
            estimates = asked.folder / f"{overlap}.estimates" if one_scheduler(arguments) else None
            scheduler = scheduler_settings(plan, steps=steps, estimates=estimates, occupancy=occupancy)
        else:
            scheduler = SchedulerSettings(
                gate=order in PLUGGED_ORDERS, step_log=str(steps.absolute()), occupancy=str(occupancy.absolute())
            )
        if order in _POLICIES:
            arguments = arguments | {"schedule_policy": str(order)}
        changed = {"scheduler": scheduler, "overlap": overlap.value, "server_args": arguments}
        rows = asked.job.accepted
        if permute is not None:
            rows = permute(rows)
        elif plan is not None:
            rows = np.array(_rows(plan), dtype=np.int64)
        return _Entry(order, overlap, msgspec.structs.replace(asked.settings, **changed), rows)

    def _plan(self, order: OrderName | LiveOrder, overlap: Overlap) -> RunPlan:
        if isinstance(order, OrderName):
            name: OrderName | None = order
        else:
            name = OrderName.SORTED if order is LiveOrder.GATED else None
        planner = replace(self.asked.planner, order=name, overlap=overlap)
        return planner.plan(self.asked.job, self.asked.job.accepted, self._hear)

    def _hear(self, event: Event) -> None:
        """What planning tells, but for how far it is."""
        if not isinstance(event, Progress):
            self.listener(event)

    def _estimates(self, entry: _Entry) -> Estimates | None:
        """Corrected lengths of one round: the file that the engine has open, empty again."""
        path = entry.settings.scheduler.estimates
        if path is None:
            return None
        estimates = Estimates(Path(path))
        for row in range(len(self.asked.job.accepted)):
            estimates.correct(row, 0)
        return estimates

    async def _start(self, entry: _Entry, stack: AsyncExitStack) -> tuple[SglangEngine, EngineInfo]:
        self.listener(PhaseStarted("load", f"engine of {entry.order} on {entry.overlap}"))
        if entry.settings.scheduler.estimates is not None:
            Estimates.create(Path(entry.settings.scheduler.estimates), len(self.asked.job.accepted))
        Occupancy.create(Path(entry.settings.scheduler.occupancy or ""))
        engine = SglangEngine(entry.settings, self.asked.folder / f"{entry.order}-{entry.overlap}.log")
        stack.push_async_callback(engine.stop)
        info = await engine.start(ignore)
        for note in info.notes:
            self.listener(Note(note, warning=True))
        return engine, info

    async def _rounds(self, batch: list[_Entry], engines: dict[bytes, tuple[SglangEngine, EngineInfo]]) -> None:
        for repeat in range(self.asked.repeats):
            # Another one begins each time, so that what changes over time favours none.
            first = repeat * len(batch) // self.asked.repeats
            for entry in (*batch[first:], *batch[:first]):
                what = f"{entry.order} on {entry.overlap}"
                self.listener(PhaseStarted("run", f"{what}, {repeat + 1} of {self.asked.repeats}"))
                found = await self._round(entry, repeat, *engines[_key(entry)])
                self.rounds.append(found)
                self.listener(Note(f"{what}: {found.seconds:.1f} s, {found.cached:,} tokens cached"))

    async def _round(self, entry: _Entry, repeat: int, engine: SglangEngine, info: EngineInfo) -> Round:
        ours = entry.order in _PLANNED
        plan = self._plan(entry.order, entry.overlap) if ours else _as_rows(entry, info)
        totals, records = (
            _Totals(),
            Records(self.asked.folder / f"{entry.order}-{entry.overlap}-{repeat}.records.jsonl"),
        )
        await engine.flush()
        estimates = self._estimates(entry) if ours and plan.learning is not None else None
        dispatcher = Dispatcher(
            job=self.asked.job,
            plan=plan,
            engine=engine,
            info=info,
            records=records,
            steps=StepTail(entry.steps),
            estimates=estimates,
            occupancy=Occupancy(Path(entry.settings.scheduler.occupancy or "")) if info.tells_running else None,
            receiver=totals,
            listener=self.listener,
            stopping=lambda: False,
            # What is measured is not disturbed by reading the engine's log.
            stats=False,
        )
        begun = time.monotonic()
        try:
            await dispatcher.run()
        finally:
            seconds = time.monotonic() - begun
            records.close()
        return Round(
            order=entry.order,
            overlap=entry.overlap,
            repeat=repeat,
            seconds=seconds,
            prompt=totals.prompt,
            cached=totals.cached,
            output=totals.output,
            failed=totals.failed,
            chosen=str(plan.order),
            predicted=plan.predicted_seconds if ours else None,
            predicted_cached=_promised(plan, records) if ours else None,
        )


@dataclass(slots=True)
class _Totals:
    """Tokens of one round."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    failed: int = 0

    def receive(self, result: Result, asked: Asked) -> None:
        self.prompt += result.usage.prompt
        self.cached += result.usage.cached
        self.output += result.usage.output
        self.failed += result.error_code is not None

    def show_progress(self) -> None:
        """Nothing is shown of a round before it ends."""


def _promised(plan: RunPlan, records: Records) -> int | None:
    """Cached tokens by the plan, counted as the engine counts them: a plan has once what items of a score share."""
    promised = plan.predicted_hit_tokens
    return None if promised is None else promised + records.within


def _key(entry: _Entry) -> bytes:
    """Engines with equal settings are one engine."""
    return msgspec.json.encode(entry.settings)


def _rows(plan: RunPlan) -> list[int]:
    """All rows of a plan in the order in which it would feed them if nothing ended."""
    rows = []
    while (queued := plan.feeder.take()) is not None:
        rows.append(queued.row)
    return rows


def _as_rows(entry: _Entry, info: EngineInfo) -> RunPlan:
    """A list as it stands. SGLang's own orders see what they can: the whole job, or the window that lpm looks at."""
    depth: dict[str, int] = {
        LiveOrder.DFS_WEIGHT: len(entry.rows),
        LiveOrder.LPM: _LPM_WINDOW,
    }
    name = entry.order if isinstance(entry.order, OrderName) else OrderName.GIVEN
    plan = RunPlan(RowFeeder(entry.rows), name, entry.overlap)
    return replace(plan, queue_depth=depth.get(entry.order, plan.queue_depth))
