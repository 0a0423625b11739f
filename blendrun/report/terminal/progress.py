"""Progress on the way: a live view on a terminal, a `key=value` line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console

from blendrun.events import Event, Note, PhaseStarted, Progress
from blendrun.report.terminal.live_view import LiveView
from blendrun.report.tracker import RUNNING, ProgressTracker

LINE_INTERVAL_S = 30.0
VERBOSE_INTERVAL_S = 5.0


class View(Protocol):
    """Shows events while it is open; a callable, so that it can be a run's listener."""

    def __call__(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def choose_view(stream: TextIO, *, quiet: bool, verbose: bool = False) -> View:
    """A live view where `stream` is a terminal, plain lines elsewhere, warnings alone when quiet.

    verbose: every phase stays to be read, and lines come every 5 s.
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    # Not `is_terminal`: FORCE_COLOR, which CI systems set, makes that true of a log.
    if stream.isatty() and not console.is_dumb_terminal and not quiet:
        return LiveView(console, verbose=verbose)
    return LineView(stream, quiet=quiet, interval=VERBOSE_INTERVAL_S if verbose else None)


class LineView:
    """One line a phase, and one every 30 s: `2026-11-29T17:05:20+00:00 t=61.8s phase=run done=12 ...`. No carriage
    return."""

    def __init__(self, stream: TextIO, *, quiet: bool = False, interval: float | None = None) -> None:
        self._stream, self._quiet = stream, quiet
        self._interval = interval
        self._begun = self._last = time.monotonic()
        self._tracker = ProgressTracker()

    def __call__(self, event: Event) -> None:
        self._tracker.take(event)
        if self._quiet and not (isinstance(event, Note) and event.warning):
            return
        if isinstance(event, Note):
            self._write(f"{'warning' if event.warning else 'note'}={_quoted(event.text)}")
        elif isinstance(event, PhaseStarted):
            detail = f" detail={_quoted(event.detail)}" if event.detail else ""
            self._write(f"phase={event.name}{detail}")
        elif isinstance(event, Progress):
            interval = LINE_INTERVAL_S if self._interval is None else self._interval
            if time.monotonic() - self._last >= interval:
                self._write(f"phase={self._tracker.phase} {_figures(event, self._tracker)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _write(self, text: str) -> None:
        self._last = time.monotonic()
        # A log that nobody can read any more (a closed pipe, a full disk) is no reason to lose the run.
        with suppress(OSError):
            clock = datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"blendrun {clock} t={self._last - self._begun:.1f}s {text}", file=self._stream, flush=True)


def _figures(event: Progress, tracker: ProgressTracker) -> str:
    text = f"done={event.done} total={event.total} unit={event.unit}"
    if event.unit != "requests" or tracker.phase not in RUNNING:
        return text
    text += (
        f" failed={event.failed} in_flight={event.in_flight} prompt_tokens={event.prompt_tokens}"
        f" cached_tokens={event.cached_tokens} output_tokens={event.output_tokens}"
    )
    if (rates := tracker.rates()) is not None:
        text += f" prefill_per_s={rates[0]:.0f} decode_per_s={rates[1]:.0f}"
    if tracker.stats is not None and tracker.stats.pool_tokens:
        text += f" kv_used={tracker.stats.kv_used / tracker.stats.pool_tokens:.2f}"
    if (left := tracker.left()) is not None:
        text += f" left_s={left[0]:.0f}-{left[1]:.0f}"
    elif tracker.expected is not None and tracker.expected.seconds is not None:
        text += f" planned_s={tracker.expected.seconds:.0f}"
    return text


def _quoted(text: str) -> str:
    """`text` as one word: quoted as JSON where it has blanks, quotes or what is not printable."""
    printable = text.isprintable()
    plain = text and printable and not any(character in text for character in ' "=\\')
    return text if plain else json.dumps(text, ensure_ascii=not printable)
