"""Everything that follows a run's events beside its view: metrics, trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blendrun.backends.options import STDIN, RunOptions
from blendrun.events import Event, Listener, Note
from blendrun.files import refuse_overwriting
from blendrun.report.export.metrics import Metrics
from blendrun.report.export.trace import ChromeTrace
from blendrun.store.folder import StateFolder


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
        output = options.output_path
        own: list[Path | str] = [output, StateFolder(output).errors]
        own += [name for name in options.inputs if name != STDIN]
        for option, path in (("--metrics-textfile", options.metrics_textfile), ("--trace", options.trace)):
            if path is not None:
                refuse_overwriting(path, own, option)
        if options.metrics_port is not None or options.metrics_textfile is not None:
            metrics = Metrics(port=options.metrics_port, textfile=options.metrics_textfile, model=options.label)
            found.metrics = stack.enter_context(metrics)
            found.others.append(found.metrics)
            if found.metrics.port is not None:
                view(Note(f"metrics at http://127.0.0.1:{found.metrics.port}/metrics"))
        if options.trace is not None:
            state = StateFolder(options.output_path)
            found.others.append(stack.enter_context(ChromeTrace(options.trace, state, appended=options.resume)))
        yield found
