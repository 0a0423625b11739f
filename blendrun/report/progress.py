"""Progress on the way: a live bar on a terminal, a `key=value` line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from blendrun.runner.events import Event, Note, PhaseStarted
from blendrun.runner.events import Progress as ProgressEvent

LINE_INTERVAL_S = 30.0
_REDRAW_INTERVAL_S = 0.1


class View(Protocol):
    """Shows events while it is open; a callable, so that it can be the runner's watch."""

    def __call__(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def choose_view(stream: TextIO, *, quiet: bool) -> View:
    """A live bar where `stream` is a terminal, plain lines elsewhere, warnings alone when quiet."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    # Not `is_terminal`: FORCE_COLOR, which CI systems set, makes that true of a log.
    if stream.isatty() and not console.is_dumb_terminal and not quiet:
        return LiveView(console)
    return LineView(stream, quiet=quiet)


class LineView:
    """One line a phase, and one every 30 s: `phase=run done=12 total=40 ...`. Never a carriage return."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream, self._quiet = stream, quiet
        self._begun = self._last = time.monotonic()
        self._phase = ""

    def __call__(self, event: Event) -> None:
        if self._quiet and not (isinstance(event, Note) and event.warning):
            return
        if isinstance(event, Note):
            self._write(f"{'warning' if event.warning else 'note'}={_quoted(event.text)}")
        elif isinstance(event, PhaseStarted):
            self._phase = event.name
            detail = f" detail={_quoted(event.detail)}" if event.detail else ""
            self._write(f"phase={event.name}{detail}")
        elif time.monotonic() - self._last >= LINE_INTERVAL_S:
            self._write(f"phase={self._phase} {_figures(event)}")

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
            print(f"blendrun t={self._last - self._begun:.1f}s {text}", file=self._stream, flush=True)


class LiveView:
    """A bar for the phase that runs, notes above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
        ]
        self._progress = Progress(*columns, console=console, transient=True, expand=True)
        self._task = self._progress.add_task("start", total=None, figures="")
        self._phase, self._begun, self._last = "", time.monotonic(), 0.0

    def __call__(self, event: Event) -> None:
        # A terminal that was closed is no reason to lose the run.
        with suppress(OSError):
            self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, Note):
            self._progress.console.print(event.text, style="yellow" if event.warning else "")
        elif isinstance(event, PhaseStarted):
            if event.name != self._phase:
                self._phase, self._begun = event.name, time.monotonic()
                self._progress.reset(self._task, total=None)
            self._progress.update(self._task, description=event.name, figures=event.detail[:60], total=None)
        elif time.monotonic() - self._last >= _REDRAW_INTERVAL_S or event.done == event.total:
            self._last = time.monotonic()
            elapsed = self._last - self._begun
            self._progress.update(self._task, completed=event.done, total=event.total, figures=_words(event, elapsed))

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._progress.stop()


def _figures(event: ProgressEvent) -> str:
    text = f"done={event.done} total={event.total} unit={event.unit}"
    if event.unit == "requests":
        text += (
            f" failed={event.failed} in_flight={event.in_flight} prompt_tokens={event.prompt_tokens}"
            f" cached_tokens={event.cached_tokens} output_tokens={event.output_tokens}"
        )
    return text


def _words(event: ProgressEvent, elapsed: float) -> str:
    if event.unit != "requests":
        return f"{event.done / 1e6:.1f} of {event.total / 1e6:.1f} MB"
    rate = event.output_tokens / elapsed if elapsed > 0 else 0.0
    cached = 100 * event.cached_tokens / event.prompt_tokens if event.prompt_tokens else 0.0
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done}/{event.total}{failed} · {rate:.0f} tokens/s out · {cached:.0f} % cached"


def _quoted(text: str) -> str:
    """`text` as one word: quoted as JSON where it has blanks, quotes or what is not printable."""
    printable = text.isprintable()
    plain = text and printable and not any(character in text for character in ' "=\\')
    return text if plain else json.dumps(text, ensure_ascii=not printable)
