"""Everything that follows a run's events beside its view: metrics, trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendrun.cli.wiring import output_path
from blendrun.errors import UsageError
from blendrun.report.metrics import Metrics
from blendrun.report.trace import Trace
from blendrun.runner.events import Event, Note, Watch
from blendrun.runner.state import StateFolder


@dataclass(slots=True)
class Watches:
    """Hands each event to all of them; one that fails is left out from then on, as it must not end the run."""

    view: Watch
    watches: list[Watch]
    metrics: Metrics | None = None

    def __call__(self, event: Event) -> None:
        self.view(event)
        for watch in list(self.watches):
            try:
                watch(event)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the run
                self.watches.remove(watch)
                name = type(watch).__name__.lower()
                self.view(Note(f"{name} is given up: {type(error).__name__}: {error}", warning=True))

    def ended(self, exit_code: int, *, success: bool) -> None:
        """The run is over, with this exit code of the command. success: every line is answered."""
        if self.metrics is not None:
            self.metrics.ended(exit_code, success=success)


@contextmanager
def watched(options: dict[str, Any], view: Watch) -> Iterator[Watches]:
    """The view and what the options ask for. Raises OutputUnavailableError."""
    with ExitStack() as stack:
        found = Watches(view, [])
        port, textfile, trace = options["metrics_port"], options["metrics_textfile"], options["trace"]
        for name in (textfile, trace):
            if name is not None:
                _refuse_own_files(Path(name), options)
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
            state = StateFolder(output_path(options))
            found.watches.append(stack.enter_context(Trace(Path(trace), state, appended=options["resume"])))
        yield found


def _refuse_own_files(path: Path, options: dict[str, Any]) -> None:
    """Raises UsageError where a file to be written is the job, or its answers."""
    output = output_path(options)
    own = [output, StateFolder(output).errors, *(Path(name) for name in options["jobs"] if name != "-")]
    if path.absolute() in [each.absolute() for each in own]:
        raise UsageError(f"{path} is a file of the job itself; give another name")
