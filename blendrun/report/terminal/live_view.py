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
from blendrun.report.terminal.duration import span, span_range
from blendrun.report.tracker import RUNNING, ProgressTracker
from blendrun.text import printable

_REDRAWS_A_SECOND = 4
_BARS = "▁▂▃▄▅▆▇█"
_METER = 20
# Narrower terminals get no pictures.
_NARROW = 60


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
    past = " · ".join(f"{phase.name} {span(tracker.seconds(phase))}" for phase in tracker.phases[:-1])
    if past:
        yield Text(past, style="dim", overflow="ellipsis", no_wrap=True)
    head = Table.grid(padding=(0, 1))
    now = Text(tracker.phase or "start", style="bold")
    if tracker.phases:
        now.append(f" {span(tracker.seconds(tracker.phases[-1]))}", style="")
    now.append(f"  {tracker.detail}".rstrip(), style="dim not bold")
    now.no_wrap, now.overflow = True, "ellipsis"
    head.add_row(*([spinner] if spinner is not None else []), now)
    yield head
    found = tracker.progress
    if found is None:
        return
    if found.total:
        bar = Table.grid()
        # In a table, as a bar alone does not end its line.
        bar.add_row(ProgressBar(total=found.total, completed=found.done, width=max(min(width - 2, 100), 1)))
        yield bar
    if tracker.phase not in RUNNING:
        yield Text(_amount(found), style="dim")
        return
    figures = list(_figures(tracker, found, width))
    if width < _NARROW:
        yield from (Text(f"{name}: {value}" if name else value) for name, value in figures)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="ellipsis", no_wrap=True)
    for name, value in figures:
        table.add_row(name, value)
    yield table


def _figures(tracker: ProgressTracker, found: Progress, width: int) -> Iterator[tuple[str, str]]:
    yield "requests", _requests(found)
    if (left := tracker.left()) is not None:
        yield "time left", span_range(*left)
    rates = tracker.rates()
    if rates is not None:
        yield "tokens/s", f"{rates[0]:,.0f} prefill, {rates[1]:,.0f} decode"
    elif found.output_tokens:
        yield "tokens", f"{found.prompt_tokens:,} in, {found.output_tokens:,} out"
    if (cached := tracker.cached_share()) is not None:
        planned = tracker.planned_share()
        plan = "" if planned is None else f" (plan {100 * planned:.0f} %)"
        yield "from cache", f"{100 * cached:.0f} % of the prompt tokens{plan}"
    stats = tracker.stats
    if stats is not None and stats.pool_tokens:
        used = stats.kv_used / stats.pool_tokens
        meter = f"{_meter(used)} " if width >= _NARROW else ""
        yield "KV pool", f"{meter}{100 * used:.0f} % of {stats.pool_tokens:,} tokens"
        yield "engine", f"{stats.running:,} decode, {stats.waiting:,} wait"
    if (share := tracker.prefill_share()) is not None:
        text = f"{100 * share:.0f} % compute (prefill), {100 * (1 - share):.0f} % memory (decode)"
        yield "time goes to", f"{_meter(share)} {text}" if width >= _NARROW else text
    history = tracker.history()
    if len(history) > 2 and width >= _NARROW:
        room = max(min(width - 32, 40), 8)
        prefill, decode = (spark([each[side] for each in history][-room:]) for side in (0, 1))
        yield "last minute", f"{prefill} prefill"
        yield "", f"{decode} decode"


def _requests(found: Progress) -> str:
    failed = f", {found.failed:,} failed" if found.failed else ""
    flight = f", {found.in_flight:,} in flight" if found.in_flight else ""
    return f"{found.done:,} of {found.total:,} done{failed}{flight}, {found.total - found.done:,} left"


def _amount(found: Progress) -> str:
    if found.unit == "bytes":
        return f"{found.done / 1e6:,.1f} of {found.total / 1e6:,.1f} MB"
    return f"{found.done:,} of {found.total:,} {found.unit}"


def _meter(share: float) -> str:
    filled = round(min(max(share, 0.0), 1.0) * _METER)
    return "█" * filled + "░" * (_METER - filled)


def spark(values: Sequence[float]) -> str:
    """A line of bars, the highest of `values` full."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[round((len(_BARS) - 1) * max(value, 0.0) / most)] for value in values)
