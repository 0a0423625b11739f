"""Prometheus metrics of a run: served on loopback, or written for node_exporter's textfile collector."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from blendrun.errors import BlendrunError, OutputUnavailableError
from blendrun.events import Event, Note, Progress
from blendrun.report.tracker import RUNNING, ProgressTracker
from blendrun.store.guard import Target, head_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

_LOOPBACK = "127.0.0.1"
_TEXT_INTERVAL_S = 15.0
# All that a run can be in, so that each is a series from the start.
PHASES = (
    *("fetch", "index", "model", "check", "grammars", "tokenise", "compile", "tree", "blend", "simulate", "cache"),
    *("load", "run", "isolate", "drain", "write", "upload"),
)


class Metrics:
    """Follows a run's events. port: to serve at, 0 for any free one; textfile: to write, now and then and at the end.

    A textfile that cannot be written costs the metrics, not the run; a port that is taken is refused before it begins.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        textfile: Target | None = None,
        model: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        from prometheus_client import CollectorRegistry

        self._port, self._textfile, self._clock = port, textfile, clock
        self.tracker = ProgressTracker()
        self._model = model
        self._warnings = 0
        self._last: Progress | None = None
        self._exit_code: int | None = None
        self._written = 0.0
        self._last_success = _earlier_success(textfile.path) if textfile is not None else None
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.port: int | None = None
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        """Begin to serve. Raises OutputUnavailableError where the port is taken or the textfile cannot be written."""
        if self._port is not None:
            from prometheus_client import start_http_server

            try:
                server, thread = start_http_server(self._port, addr=_LOOPBACK, registry=self.registry)
            except OSError as error:
                raise OutputUnavailableError(
                    f"--metrics-port {self._port}: {error.strerror}; give another port, or 0 for any free one"
                ) from error
            self.port = server.server_port

            def stop() -> None:
                server.shutdown()
                server.server_close()
                thread.join()

            self._stop = stop
        if self._textfile is not None:
            self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._textfile is not None:
            with suppress(OSError, BlendrunError):
                self._write()
        self._stop()

    def __call__(self, event: Event) -> None:
        self.tracker.take(event)
        if isinstance(event, Note):
            self._warnings += event.warning
        elif isinstance(event, Progress) and self.tracker.phase in RUNNING:
            self._last = event
        if self._textfile is not None and time.monotonic() - self._written >= _TEXT_INTERVAL_S:
            with suppress(OSError, BlendrunError):
                self._write()

    def ended(self, exit_code: int, *, success: bool) -> None:
        """The run is over. Success is remembered; a failure leaves the last success as it was."""
        self._exit_code = exit_code
        if success:
            self._last_success = self._clock()

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now, for prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        tracker, found = self.tracker, self._last
        running = tracker.phase in RUNNING and self._exit_code is None
        info = InfoMetricFamily("blendrun_run", "The run.")
        info.add_metric([], {"model": self._model})
        yield info
        requests = CounterMetricFamily(
            "blendrun_requests", "Lines of the job that have ended, earlier invocations included.", labels=["result"]
        )
        requests.add_metric(["answered"], found.done - found.failed if found else 0)
        requests.add_metric(["failed"], found.failed if found else 0)
        yield requests
        taken = CounterMetricFamily(
            "blendrun_requests_not_asked",
            "Of these, lines that no engine was asked for: they ask the same as another one, or an answer was kept.",
            labels=["source"],
        )
        taken.add_metric(["copy"], found.copies if found else 0)
        taken.add_metric(["cache"], found.kept if found else 0)
        yield taken
        tokens = CounterMetricFamily(
            "blendrun_tokens",
            "Tokens of finished requests of this invocation: prompt tokens computed, prompt tokens from the prefix "
            "cache, tokens of answers.",
            labels=["kind"],
        )
        cached = found.cached_tokens if found else 0
        tokens.add_metric(["prefill"], (found.prompt_tokens if found else 0) - cached)
        tokens.add_metric(["cached"], cached)
        tokens.add_metric(["decode"], found.output_tokens if found else 0)
        yield tokens
        yield GaugeMetricFamily("blendrun_lines", "Lines of the job.", value=found.total if found else 0)
        yield GaugeMetricFamily(
            "blendrun_inflight_requests",
            "Requests that the engine has.",
            value=found.in_flight if found and running else 0,
        )
        if (stats := tracker.stats) is not None and running:
            yield GaugeMetricFamily(
                "blendrun_inflight_tokens", "Tokens of the KV pool that something runs on.", value=stats.kv_used
            )
            yield GaugeMetricFamily("blendrun_kv_pool_tokens", "Size of the KV pool.", value=stats.pool_tokens)
            yield GaugeMetricFamily("blendrun_decoding_requests", "Answers being decoded.", value=stats.running)
            yield GaugeMetricFamily("blendrun_queued_requests", "Requests in the engine's queue.", value=stats.waiting)
        phase = GaugeMetricFamily("blendrun_phase", "1 for the phase that the run is in.", labels=["phase"])
        for name in PHASES:
            phase.add_metric([name], float(name == tracker.phase and self._exit_code is None))
        yield phase
        seconds = GaugeMetricFamily("blendrun_phase_seconds", "Seconds of each phase so far.", labels=["phase"])
        spent: dict[str, float] = {}
        for each in tracker.phases:
            spent[each.name] = spent.get(each.name, 0.0) + tracker.seconds(each)
        for name, value in spent.items():
            seconds.add_metric([name], value)
        yield seconds
        yield from self._planned()
        yield CounterMetricFamily("blendrun_warnings", "Warnings of this invocation.", value=self._warnings)
        if self._exit_code is not None:
            yield GaugeMetricFamily("blendrun_exit_code", "Exit code of the run that ended.", value=self._exit_code)
        if self._last_success is not None:
            yield GaugeMetricFamily(
                "blendrun_last_success_timestamp_seconds",
                "When a run last ended with every line answered, in Unix seconds.",
                value=self._last_success,
            )

    def _planned(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        plan = self.tracker.expected
        if plan is not None and plan.seconds is not None:
            yield GaugeMetricFamily(
                "blendrun_planned_seconds", "Predicted seconds of the phase run.", value=plan.seconds
            )
        left = self.tracker.left() if self._exit_code is None else None
        if left is not None:
            metric = GaugeMetricFamily(
                "blendrun_left_seconds", "Least and most seconds that the phase run will still take.", labels=["bound"]
            )
            for name, value in zip(("least", "most"), left, strict=True):
                metric.add_metric([name], value)
            yield metric
        share = self.tracker.planned_share()
        if share is not None:
            yield GaugeMetricFamily(
                "blendrun_planned_cached_ratio", "Prompt tokens from the prefix cache, as planned.", value=share
            )

    def _write(self) -> None:
        """By rename: the collector never sees half a file. Raises OutputUnavailableError."""
        from prometheus_client import generate_latest

        self._written = time.monotonic()
        if self._textfile is not None:
            self._textfile.write(generate_latest(self.registry))


def is_metrics(path: Path) -> bool:
    """Whether a file is the textfile of a run."""
    return head_of(path).startswith((b"# HELP blendrun_", b"# TYPE blendrun_"))


def _earlier_success(path: Path) -> float | None:
    """The last success that an earlier run left in the textfile."""
    if not path.is_file():
        # A device could be read for ever.
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "blendrun_last_success_timestamp_seconds":
            with suppress(ValueError):
                return float(value)
    return None
