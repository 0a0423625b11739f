"""A job on disk and a run of it in this process, with the replay engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blendrun.engine.base import Engine
from blendrun.engine.replay import ReplayEngine
from blendrun.events import Event, ignore
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.source import open_sources
from blendrun.names import OrderName
from blendrun.runner.replica import Patience
from blendrun.runner.run import execute
from blendrun.runner.settings import RunSettings
from blendrun.store.summary import Summary

CHAT = "/v1/chat/completions"


def line(custom_id: str, text: str = "Hello", **body: Any) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"custom_id": custom_id, "url": CHAT, "body": {"messages": messages, **body}}).encode()


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(part + b"\n" for part in lines))
    return path


def index(*paths: Path) -> Job:
    return index_jobs(open_sources(paths, paths[0].parent / "spool"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_bytes().splitlines()]


def settings(output: Path, *inputs: Path, **changes: Any) -> RunSettings:
    fields: dict[str, Any] = {
        "inputs": tuple(map(str, inputs)),
        "output": output,
        "model": "replay",
        "model_identity": "replay",
        "engine": "replay",
        "answer_settings": {},
        "patience": Patience(restarts=0, drain=0.0),
    }
    fields |= changes
    return RunSettings(**fields | {"order": OrderName(fields.get("order", "given"))})


def run(
    output: Path,
    *inputs: Path,
    engine: dict[str, object] | Callable[[], Engine] | None = None,
    events: list[Event] | None = None,
    **changes: Any,
) -> Summary:
    """engine: arguments of the replay engine, or what makes another one."""

    def make() -> Engine:
        return engine() if callable(engine) else ReplayEngine.from_arguments(engine or {})

    listener = events.append if events is not None else ignore
    return execute(settings(output, *inputs, **changes), lambda *_: make(), listener)


def no_engine() -> Engine:
    raise AssertionError("this run needs no engine")
