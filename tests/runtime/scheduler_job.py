"""One engine, fed directly: groups of siblings in a pool too small for them, with a step log beside it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from blendrun.engine.base import (
    ConstantStep,
    EngineInfo,
    EngineSettings,
    Planned,
    Result,
    SchedulerSettings,
    WorkItem,
)
from blendrun.engine.process import SglangEngine
from blendrun.events import ignore

POOL = 640
STEP = 96
GROUPS, EACH = 6, 4
SHARED, OWN, ANSWER = 90, 24, 12
# Of each request that is planned as if it answered next to nothing.
LONG_ANSWER = 40


@dataclass(frozen=True)
class Phase:
    """What came of one batch of work items: results by row, and the lines of the step log meanwhile."""

    results: dict[int, Result]
    steps: list[dict[str, Any]]

    def texts(self) -> dict[int, list[str]]:
        """The choices of each row."""
        bodies = {row: orjson.loads(result.body) for row, result in self.results.items()}
        return {row: [choice["text"] for choice in body["choices"]] for row, body in bodies.items()}

    def admitted(self) -> list[int]:
        """Places in the plan in order of admission; one that was sent back is there again."""
        return [index for step in self.steps for index in step["admitted"]]

    def total(self, field: str) -> int:
        return sum(step[field] for step in self.steps)


@dataclass(frozen=True)
class SchedulerRun:
    info: EngineInfo
    phases: list[Phase]


def item(row: int, prompt: Sequence[int], tokens: int, plan: Planned | None = None, **body: Any) -> WorkItem:
    asked = {"model": "any", "prompt": list(prompt), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return WorkItem(row, "/v1/completions", orjson.dumps(asked | body), plan=plan)


def _ids(source: random.Random, count: int) -> list[int]:
    return [source.randrange(100, 40_000) for _ in range(count)]


def siblings() -> list[WorkItem]:
    """One that keeps the engine busy until all have come, then groups in plan order, submitted in another."""
    source = random.Random(7)
    items = [item(0, _ids(source, 4 * STEP), ANSWER, Planned(0, ANSWER, 0))]
    later = []
    for group in range(GROUPS):
        shared = _ids(source, SHARED)
        for member in range(EACH):
            row = 1 + group * EACH + member
            reuse = SHARED if member < EACH - 1 else 0
            later.append(item(row, shared + _ids(source, OWN), ANSWER, Planned(row, ANSWER, reuse)))
    source.shuffle(later)
    return items + later


def misjudged() -> list[WorkItem]:
    """Each is planned to answer two tokens and answers many more, so the pool overflows."""
    source = random.Random(8)
    return [item(row, _ids(source, 40), LONG_ANSWER, Planned(row, 2, 0)) for row in range(16)]


def choices() -> list[WorkItem]:
    """Two answers to one prompt."""
    return [item(0, _ids(random.Random(9), 40), 4, Planned(77, 4, 0), n=2, temperature=1.0)]


def plugged(log: Path) -> SchedulerSettings:
    """Everything on."""
    return SchedulerSettings(budget=ConstantStep(STEP), reserve=True, next_use=True, plan_order=True, step_log=str(log))


def run_phases(
    folder: Path, model: Path, scheduler: SchedulerSettings, phases: Sequence[Sequence[WorkItem]], **arguments: Any
) -> SchedulerRun:
    """Start an engine, run each phase to its end, stop it."""
    settings = EngineSettings(str(model), "cpu", 1, server_args=arguments, scheduler=scheduler)
    return asyncio.run(_run(SglangEngine(settings, folder / "engine.log"), scheduler, phases))


async def _run(
    engine: SglangEngine, scheduler: SchedulerSettings, phases: Sequence[Sequence[WorkItem]]
) -> SchedulerRun:
    done = []
    try:
        info = await engine.start(ignore)
        results, seen = engine.results(), 0
        for items in phases:
            for work in items:
                await engine.submit(work)
            found = [await anext(results) for _ in items]
            lines = Path(scheduler.step_log).read_bytes().splitlines() if scheduler.step_log else []
            done.append(Phase({result.row: result for result in found}, [orjson.loads(line) for line in lines[seen:]]))
            seen = len(lines)
    finally:
        await engine.stop()
    return SchedulerRun(info, done)
