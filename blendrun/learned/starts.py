"""How long engines take to come up on this machine, so that the next one who waits knows what is usual."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from blendrun.database import data_folder, learns
from blendrun.errors import BlendrunError
from blendrun.events import Event, Listener, Note, PhaseStarted
from blendrun.files import write_atomically

# The last starts of each kind of engine, and kinds of engines, that are kept.
_KEPT, _KINDS = 5, 50
# A start that takes longer than this, in seconds, is told of, with the log to look at.
_LONG = 60.0
# What an engine does while it comes up, in words.
_WORDS = {
    "engine": "starting the engine",
    "import": "starting SGLang: importing",
    "load": "starting SGLang: loading the model",
    "warm up": "starting SGLang: warming up",
}


class _File(msgspec.Struct):
    """Seconds of the last starts, the newest last, by kind of engine."""

    starts: dict[str, list[float]] = {}


@dataclass(frozen=True, slots=True)
class Starts:
    """Those of one kind of engine. kind: what makes one start like another: machine, model, arguments."""

    path: Path | None
    kind: str

    @classmethod
    def of(cls, *kind: str) -> Starts:
        """On this machine. Nothing is remembered where learning is off, or there is no home folder."""
        path = None
        with suppress(RuntimeError):
            path = data_folder() / "starts.json" if learns() else None
        return cls(path, json.dumps([platform.node(), *kind]))

    @property
    def usual(self) -> float | None:
        """Seconds that it takes as a rule; None where none was seen."""
        seconds = self._read().starts.get(self.kind)
        return statistics.median(seconds) if seconds else None

    def remember(self, seconds: float) -> None:
        """One has come up. What cannot be kept is not."""
        if self.path is None:
            return
        found = self._read()
        before = found.starts.pop(self.kind, [])
        # The newest kinds stand last.
        found.starts[self.kind] = [*before, round(seconds, 1)][-_KEPT:]
        found.starts = dict(list(found.starts.items())[-_KINDS:])
        with suppress(OSError, BlendrunError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, msgspec.json.encode(found))

    def _read(self) -> _File:
        if self.path is None:
            return _File()
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError):
            return _File()


NO_STARTS = Starts(None, "")


@dataclass(slots=True)
class Starting:
    """Listens to an engine that comes up, and passes its phases on in words, with what is usual.

    log: of the engine, to be looked at where it takes long.
    """

    listener: Listener
    starts: Starts
    log: Path
    clock: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)
    _usual: float | None = field(init=False)
    _seen: bool = False
    _told: bool = False

    def __post_init__(self) -> None:
        self._begun, self._usual = self.clock(), self.starts.usual

    def __call__(self, event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.name == "load" and event.detail in _WORDS:
            self._seen = self._seen or event.detail == "import"
            usual = f" (usually {self._usual:.0f} s here)" if self._usual is not None else ""
            event = PhaseStarted("load", f"{_WORDS[event.detail]}{usual}")
        self.listener(event)

    def look(self) -> None:
        """Some time has passed: after a minute, and behind what is usual, the log is told of, once."""
        if self._told or self.clock() - self._begun < max(_LONG, 1.5 * (self._usual or 0.0)):
            return
        self._told = True
        self.listener(Note(f"the engine is still starting; what it does: {self.log}"))

    def ready(self) -> None:
        """It is up. One that was up before, or elsewhere, says nothing of the next start."""
        if self._seen:
            self.starts.remember(self.clock() - self._begun)
