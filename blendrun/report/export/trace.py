"""`--trace`: phases and engine steps as a Chrome trace, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from blendrun.events import Event, Note, PhaseStarted
from blendrun.report.tracker import ProgressTracker
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target, head_of
from blendrun.store.steps import logged_steps

_BEGINNING = b'{"displayTimeUnit":"ms","traceEvents":[\n'
_RUN, _ENGINE = 1, 2
_PHASES, _STEPS, _PREFILLS = 1, 1, 2


class ChromeTrace:
    """Follows a run's events, and at its end adds the steps that its engines logged meanwhile.

    state: where the engines' step logs are; appended: earlier invocations have begun them. Times are microseconds since
    the start. A step's place in time is that of its engine's readiness, as the runner saw it (of several replicas, of
    the first one's): steps are right to each other, and to the phases within a second or so.
    """

    def __init__(self, target: Target, state: StateFolder, *, appended: bool = True) -> None:
        self._target, self._state, self._appended = target, state, appended
        self._tracker = ProgressTracker()
        self._notes: list[tuple[float, str]] = []
        self._ready: list[float] = []
        self._at: dict[Path, int] = {}

    def __enter__(self) -> Self:
        """Raises OutputUnavailableError where the file cannot be written."""
        self._target.check()
        with suppress(OSError):
            self._at = {path: path.stat().st_size for path in self._state.all_steps if self._appended}
        return self

    def __call__(self, event: Event) -> None:
        before = self._tracker.phase
        self._tracker.take(event)
        now = time.monotonic() - self._tracker.begun
        if isinstance(event, Note):
            self._notes.append((now, event.text))
        elif isinstance(event, PhaseStarted) and before == "load" and event.name != "load":
            self._ready.append(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What cannot be written costs the trace, not the run, whatever the reason.
        with suppress(Exception), self._target.opened() as file:
            file.write(_BEGINNING)
            for number, event in enumerate(self._events()):
                file.write((b",\n" if number else b"") + orjson.dumps(event))
            file.write(b"\n]}\n")

    def _events(self) -> Iterator[dict[str, Any]]:
        yield _name("process_name", _RUN, 0, "blendrun")
        yield _name("thread_name", _RUN, _PHASES, "phases")
        for phase in self._tracker.phases:
            begun = phase.begun - self._tracker.begun
            yield _span(_RUN, _PHASES, phase.name, begun, self._tracker.seconds(phase), {"detail": _text(phase.detail)})
        for at, text in self._notes:
            yield {"ph": "i", "s": "p", "pid": _RUN, "tid": _PHASES, "ts": _micro(at), "name": _text(text)[:200]}
        logs = self._state.all_steps
        for number, path in enumerate(logs):
            yield _name("process_name", _ENGINE + number, 0, f"engine {number + 1}" if len(logs) > 1 else "engine")
            yield _name("thread_name", _ENGINE + number, _STEPS, "steps")
            yield from self._logged(path, _ENGINE + number)

    def _logged(self, path: Path, process: int) -> Iterator[dict[str, Any]]:
        offset, starts = 0.0, 0
        begin = self._at.get(path, 0)
        parallel = False
        with suppress(OSError):
            # The log may have been begun anew (`--no-resume`).
            if begin > path.stat().st_size:
                begin = 0
        for step in logged_steps(path, begin):
            at = step["time"]
            if step["step"] == 0 or not starts:
                ready = self._ready[min(starts, len(self._ready) - 1)] if self._ready else 0.0
                offset, starts = ready - at, starts + 1
            if step.get("parallel") and not parallel:
                parallel = True
                yield _name("thread_name", process, _PREFILLS, "prefill beside")
            yield from _step(step, at + offset, process)


def is_trace(path: Path) -> bool:
    """Whether a file is the trace of a run."""
    head = head_of(path)
    return head.startswith(_BEGINNING) and b'"args":{"name":"blendrun"}' in head


def _step(step: dict[str, Any], at: float, process: int) -> Iterator[dict[str, Any]]:
    """Prefill and decode that have parts of the device of their own have threads of their own."""
    apart = step.get("parallel") and step["mode"] == "prefill"
    known = ("step", "prefill_tokens", "decode_rows", "hit_tokens", "context_tokens", "budget")
    yield _span(
        process,
        _PREFILLS if apart else _STEPS,
        step["mode"],
        at,
        step["seconds"] or 0.0,
        {name: step[name] for name in known},
    )
    for name, values in (
        ("KV tokens", {"in use": step["kv_used"], "cached": step["evictable"]}),
        ("requests", {"decoding": step["decode_rows"], "waiting": step["waiting"]}),
    ):
        yield {"ph": "C", "pid": process, "ts": _micro(at), "name": name, "args": values}


def _span(process: int, thread: int, name: str, at: float, seconds: float, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": process,
        "tid": thread,
        "ts": _micro(at),
        "dur": _micro(seconds),
        "name": name,
        "args": args,
    }


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _text(text: str) -> str:
    """A file's name need not be Unicode."""
    return text.encode(errors="replace").decode()


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
