"""The live view of a terminal: phases, a bar, figures, what the engine's time goes into."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from blendrun.events import Event, Note, PhaseStarted, Progress
from blendrun.report.terminal.console import Shown
from blendrun.report.terminal.duration import left_text, span
from blendrun.report.tracker import RUNNING, ProgressTracker
from blendrun.text import printable

_REDRAWS_A_SECOND = 4
_BARS = "▁▂▃▄▅▆▇█"
_METER, _LONG_METER, _LONG_FROM = 20, 40, 100
# Tokens/s that a full bar is at least, and the part of the pool that is drawn.
_FULL_BAR = 8.0
_WORTH_A_METER = 0.1
# Narrower terminals get no pictures; in wider ones job and engine stand side by side.
_NARROW, _WIDE = 60, 150


class LiveView:
    """Redraws itself; notes stand above it and stay."""

    def __init__(self, console: Console, *, verbose: bool = False, tracker: ProgressTracker | None = None) -> None:
        self._console, self._verbose = console, verbose
        self._tracker = ProgressTracker() if tracker is None else tracker
        # Redrawn by a thread of rich's, while events come in.
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=_REDRAWS_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._tracker.take(event)
        # A terminal that was closed is no reason to lose the run.
        with suppress(OSError):
            if isinstance(event, Note):
                self._live.console.print(printable(event.text), style="yellow" if event.warning else "")
            elif isinstance(event, PhaseStarted) and self._verbose:
                self._live.console.print(printable(f"{event.name} {event.detail}".rstrip()), style="dim")

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._live.stop()

    def _draw(self) -> RenderableType:
        with self._lock:
            return Shown(Group(*panel(self._tracker, self._console.width, self._spinner)))


def panel(tracker: ProgressTracker, width: int, spinner: RenderableType | None = None) -> Iterator[RenderableType]:
    """Lines of the view, one under the other. width: columns of the terminal."""
    if past := _past(tracker, width):
        yield Text(past, style="dim", overflow="ellipsis", no_wrap=True)
    yield _head(tracker, spinner)
    found = tracker.progress
    if found is None:
        return
    running = tracker.phase in RUNNING
    if found.total and (running or found.unit != "requests"):
        bar = Table.grid()
        # In a table, as a bar alone does not end its line.
        room = max(width - 2, 1)
        bar.add_row(ProgressBar(found.total, found.done, room, complete_style="cyan", finished_style="cyan"))
        yield bar
    if not running:
        yield Text(_amount(found), style="dim")
        return
    job, engine = list(_of_job(tracker, found)), list(_of_engine(tracker, found, width))
    if width < _NARROW:
        yield from (Text.assemble(f"{name}: " if name else "", value) for name, value in (*job, *engine))
    elif width < _WIDE:
        yield _table([*job, *engine])
    else:
        both = Table.grid(padding=(0, 4))
        both.add_row(_table(job), _table(engine))
        yield both


def _past(tracker: ProgressTracker, width: int) -> str:
    """Phases that took a second or more; where they are too many for the line, the longest of them."""
    spent = [(phase.name, tracker.seconds(phase)) for phase in tracker.phases[:-1]]
    spent = [each for each in spent if each[1] >= 1]

    def text() -> str:
        return " · ".join(f"{name} {span(seconds)}" for name, seconds in spent)

    while len(spent) > 1 and len(text()) > width:
        spent.remove(min(spent, key=lambda each: each[1]))
    return text()


def _head(tracker: ProgressTracker, spinner: RenderableType | None) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    now = Text(tracker.phase or "start", style="bold")
    if tracker.phases:
        now.append(f" {span(tracker.seconds(tracker.phases[-1]))}", style="")
    now.append(f"  {tracker.detail}".rstrip(), style="dim not bold")
    now.no_wrap, now.overflow = True, "ellipsis"
    head.add_row(*([spinner] if spinner is not None else []), now)
    return head


def _table(rows: Sequence[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _of_job(tracker: ProgressTracker, found: Progress) -> Iterator[tuple[str, Text]]:
    yield "requests", _requests(found)
    planned = tracker.expected.seconds if tracker.expected is not None else None
    yield "time left", Text(left_text(tracker.left(), planned))
    rates = tracker.rates()
    if rates is not None:
        yield "tokens/s", Text(f"{rates[0]:,.0f} prefill, {rates[1]:,.0f} decode")
    elif found.output_tokens:
        yield "tokens", Text(f"{found.prompt_tokens:,} in, {found.output_tokens:,} out")
    if (cached := tracker.cached_share()) is not None:
        share = tracker.planned_share()
        plan = "" if share is None else f" (plan {100 * share:.0f} %)"
        yield "from cache", Text(f"{100 * cached:.0f} % of the prompt tokens{plan}")


def _of_engine(tracker: ProgressTracker, found: Progress, width: int) -> Iterator[tuple[str, Text]]:
    stats, pictures = tracker.stats, width >= _NARROW
    cells = _LONG_METER if _LONG_FROM <= width < _WIDE else _METER
    if stats is not None and stats.pool_tokens:
        used = stats.kv_used / stats.pool_tokens
        meter = f"{_meter(used, cells)} " if pictures and used >= _WORTH_A_METER else ""
        yield "KV pool", Text(f"{meter}{100 * used:.0f} % of {stats.pool_tokens:,} tokens")
        # Looked at a moment apart: what has been answered since runs no more.
        running = min(stats.running, found.in_flight) if found.in_flight else stats.running
        waiting = f", {stats.waiting:,} wait" if stats.waiting else ""
        yield "engine", Text(f"{running:,} decode{waiting}")
    if (share := tracker.prefill_share()) is not None:
        text = f"{100 * share:.0f} % prefill (compute), {100 * (1 - share):.0f} % decode (memory)"
        yield "time goes to", Text(f"{_meter(share, cells)} {text}" if pictures else text)
    history = tracker.history()
    if len(history) > 2 and pictures:
        room = (width // 2 if width >= _WIDE else width) - 32
        prefill, decode = (spark([each[side] for each in history][-room:]) for side in (0, 1))
        yield "last minute", Text(f"{prefill} prefill")
        yield "", Text(f"{decode} decode")


def _requests(found: Progress) -> Text:
    text = Text(f"{found.done:,} of {found.total:,} done, ")
    text.append(f"{found.failed:,} failed", style="red" if found.failed else "")
    if found.cut:
        text.append(", ").append(f"{found.cut:,} cut short", style="yellow")
    flight = f", {found.in_flight:,} in flight" if found.in_flight else ""
    return text.append(f"{flight}, {found.total - found.done:,} left")


def _amount(found: Progress) -> str:
    if found.unit == "bytes":
        return f"{found.done / 1e6:,.1f} of {found.total / 1e6:,.1f} MB"
    return f"{found.done:,} of {found.total:,} {found.unit}"


def _meter(share: float, cells: int) -> str:
    filled = round(min(max(share, 0.0), 1.0) * cells)
    return "█" * filled + "░" * (cells - filled)


def spark(values: Sequence[float]) -> str:
    """A line of bars, the highest of `values` full, but where there is next to nothing."""
    most = max(*values, _FULL_BAR) if values else _FULL_BAR
    return "".join(_BARS[round((len(_BARS) - 1) * max(value, 0.0) / most)] for value in values)
