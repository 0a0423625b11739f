"""Tries: what may pass is tried again, later each time; what will not is told at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from blendrun.backoff import pause
from blendrun.events import Listener, Note
from blendrun.remote.address import Address

_Result = TypeVar("_Result")
# Tries without any progress, and seconds before the second one: half a minute in all.
TRIES, FIRST_S = 7, 0.5
# As long as a server may ask for; a run waits for its input, and its answers lie safe meanwhile.
_LONGEST_ASKED_S = 120.0
# Tries that are told: not a line for each of those that a poor line takes.
_TOLD = 3


class RemoteError(Exception):
    """What is wrong at an address: the end of a sentence that begins with it, without anything of its query."""


class MissingError(RemoteError):
    """There is nothing."""


class RefusedError(RemoteError):
    """It is there, and not for whoever asks."""


class ChangedError(RemoteError):
    """It has become something else while it was read."""


class PassingError(RemoteError):
    """It may go another time. retry_after: seconds that the server asks for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def persist(
    work: Callable[[], _Result],
    address: Address,
    listener: Listener,
    *,
    progress: Callable[[], int] = lambda: 0,
    tries: int | None = None,
) -> _Result:
    """The result of `work`, which is called again for as long as it raises PassingError.

    progress: what it has reached; tries are counted from where that last grew. tries: None for TRIES.
    Raises RemoteError.
    """
    most = TRIES if tries is None else tries
    made, told, best = 0, 0, progress()
    while True:
        try:
            return work()
        except PassingError as error:
            made += 1
            if (now := progress()) > best:
                best, made = now, 1
            if made >= most:
                raise
            seconds = pause(made, FIRST_S, error.retry_after, _LONGEST_ASKED_S)
            if told < _TOLD:
                told += 1
                listener(Note(f"{address.shown} {error}; trying again in {seconds:.1f} s"))
            time.sleep(seconds)
