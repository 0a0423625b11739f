"""`--partial FILE` of a run: begun once it works, grown on the way, whole at its end."""

from __future__ import annotations

from blendrun.errors import InputMissingError, OutputUnavailableError, unwritable
from blendrun.events import Listener, Note
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from blendrun.store.partial import PartialFile


class PartialAnswers:
    """The answers so far, where a file for them was asked for."""

    def __init__(self, target: Target | None, state: StateFolder, listener: Listener) -> None:
        """listener: told when the file cannot be written any more, which does not end the run."""
        self._target, self._state, self._listener = target, state, listener
        self._file: PartialFile | None = None

    def begin(self) -> None:
        """Write what the journal has. Raises UsageError, OutputUnavailableError."""
        if self._target is not None:
            try:
                self._file = PartialFile(self._target, self._state)
            except OSError as error:
                raise unwritable(self._target.path, error, "the same command resumes") from error
            except InputMissingError as error:
                # The journal is no input of a run, as it is to those who only read it.
                raise OutputUnavailableError(f"{error}; fix that, and the same command resumes") from error

    def grow(self) -> None:
        """Add what has come, once in a while."""
        self._grow(last=False)

    def end(self) -> None:
        """Add the rest, whatever ended the run."""
        self._grow(last=True)

    def _grow(self, *, last: bool) -> None:
        if self._file is not None and (trouble := self._file.grow(last=last)) is not None:
            self._listener(Note(trouble, warning=True))
