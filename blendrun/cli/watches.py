"""Everything that follows a run's events beside its view: metrics, trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendrun.cli.wiring import output_path
from blendrun.report.metrics import Metrics
from blendrun.report.trace import Trace
from blendrun.runner.events import Event, Note, Watch
from blendrun.runner.state import StateFolder


@dataclass(slots=True)
class Watches:
    """Hands each event to all of them."""

    watches: list[Watch]
    metrics: Metrics | None = None

    def __call__(self, event: Event) -> None:
        for watch in self.watches:
            watch(event)

    def ended(self, exit_code: int) -> None:
        """The run is over, with this exit code of the command."""
        if self.metrics is not None:
            self.metrics.ended(exit_code)


@contextmanager
def watched(options: dict[str, Any], view: Watch) -> Iterator[Watches]:
    """The view and what the options ask for. Raises OutputUnavailableError."""
    with ExitStack() as stack:
        found = Watches([view])
        port, textfile, trace = options["metrics_port"], options["metrics_textfile"], options["trace"]
        if port is not None or textfile is not None:
            found.metrics = stack.enter_context(
                Metrics(
                    port=port,
                    textfile=Path(textfile) if textfile is not None else None,
                    model=str(options["model"] or options["engine"]),
                )
            )
            found.watches.append(found.metrics)
            if found.metrics.port is not None:
                view(Note(f"metrics at http://127.0.0.1:{found.metrics.port}/metrics"))
        if trace is not None:
            steps = StateFolder(output_path(options)).steps
            found.watches.append(stack.enter_context(Trace(Path(trace), steps)))
        yield found
