"""Everything that follows a run's events beside its view: metrics, trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from blendrun.backends.options import RunOptions
from blendrun.events import Event, Listener, Note
from blendrun.remote.address import local_paths
from blendrun.report.export.metrics import Metrics, is_metrics
from blendrun.report.export.trace import ChromeTrace, is_trace
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target


@dataclass(slots=True)
class Listeners:
    """Hands each event to all of them; one that fails is left out from then on, as it must not end the run."""

    view: Listener
    others: list[Listener] = field(default_factory=list)
    metrics: Metrics | None = None

    def __call__(self, event: Event) -> None:
        self.view(event)
        for listener in list(self.others):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the run
                self.others.remove(listener)
                name = type(listener).__name__.lower()
                self.view(Note(f"{name} is given up: {type(error).__name__}: {error}", warning=True))

    def ended(self, exit_code: int, *, success: bool) -> None:
        """The run is over, with this exit code of the command. success: every line is answered."""
        if self.metrics is not None:
            self.metrics.ended(exit_code, success=success)


@contextmanager
def listening(options: RunOptions, view: Listener) -> Iterator[Listeners]:
    """The view and what the options ask for. Raises OutputUnavailableError, UsageError."""
    with ExitStack() as stack:
        found = Listeners(view)
        state, own = StateFolder(options.output_path), own_paths(options)
        textfile = trace = None
        if options.metrics_textfile is not None:
            textfile = Target(options.metrics_textfile, "--metrics-textfile", own, is_metrics, options.overwrite)
            textfile.check()
        if options.trace is not None:
            trace = Target(options.trace, "--trace", own, is_trace, options.overwrite)
            trace.check()
        if options.metrics_port is not None or textfile is not None:
            metrics = Metrics(port=options.metrics_port, textfile=textfile, model=options.label)
            found.metrics = stack.enter_context(metrics)
            found.others.append(found.metrics)
            if found.metrics.port is not None:
                view(Note(f"metrics at http://127.0.0.1:{found.metrics.port}/metrics"))
        if trace is not None:
            found.others.append(stack.enter_context(ChromeTrace(trace, state, appended=options.resume)))
        yield found


def own_paths(options: RunOptions) -> tuple[Path, ...]:
    """What a run reads and keeps: inputs, output, errors file, state and all that is in it by whatever name."""
    state = StateFolder(options.output_path)
    whole = StateFolder(options.whole_output_path)
    kept: list[Path] = []
    # A state folder that cannot be looked at is refused by the run, in a sentence.
    with suppress(OSError):
        kept = sorted(state.path.rglob("*"))
    return (*local_paths(options.inputs), state.output, state.errors, whole.output, whole.errors, state.path, *kept)
