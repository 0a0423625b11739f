"""Report pages of jobs, drawn when somebody looks; what they are drawn from stays behind a job's end.

A page tells of a whole job: only who owns all of its batches may see it. A browser's address has no key in it, so who
has the key gets an address that is good for one look, soon.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from blendrun.errors import InputMissingError
from blendrun.report.page.page import page_html
from blendrun.report.page.subject import run_subject
from blendrun.service.objects import BatchObject
from blendrun.service.store import Store
from blendrun.store.folder import StateFolder

_OUTPUT = "answers.jsonl"
# The name of `run.json` behind the job's end.
_ENDED = "ended.json"
# Jobs whose reports can be had, the newest; and seconds for which an address is good.
_MOST_KEPT, _TICKET_S = 100, 60.0


class NoReportError(Exception):
    """There is no page of this batch; the sentence says why."""


@dataclass(slots=True)
class Reports:
    """Safe from several threads."""

    store: Store
    # Batches by what the end of the address is, and until when it is good.
    _tickets: dict[str, tuple[str, float]] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def page(self, batch: BatchObject) -> str:
        """HTML. Raises NoReportError."""
        folder = self._folder(batch)
        try:
            return page_html([run_subject(folder / _OUTPUT, batch.id)])
        except (InputMissingError, OSError) as error:
            raise NoReportError("nothing has run of this batch yet, or its report is no longer kept") from error

    def ticket(self, batch: BatchObject) -> str:
        """What lets somebody see its page once. Raises NoReportError where there is none."""
        self._folder(batch)
        ticket, now = secrets.token_urlsafe(32), time.monotonic()
        with self._guard:
            self._tickets = {name: each for name, each in self._tickets.items() if each[1] > now}
            self._tickets[ticket] = batch.id, now + _TICKET_S
        return ticket

    def taken(self, ticket: str) -> BatchObject | None:
        """Whose page a ticket is for; it is good no more. None where it never was."""
        with self._guard:
            name, good_until = self._tickets.pop(ticket, ("", 0.0))
        return self.store.batches.get(name) if time.monotonic() < good_until else None

    def _folder(self, batch: BatchObject) -> Path:
        """Of the job. Raises NoReportError."""
        try:
            folder = None if batch.run is None else self.store.run(batch.run)
        except FileNotFoundError:
            folder = None
        if folder is None or not folder.is_dir():
            raise NoReportError("nothing has run of this batch yet, or its report is no longer kept")
        beside = [each for each in self.store.all_batches() if each.run == batch.run]
        if any(each.owner != batch.owner for each in beside):
            raise NoReportError("its job has batches of other keys, too, and a report tells of all")
        return folder


def end_run(store: Store, name: str) -> None:
    """Of a job that has ended keep what its page is drawn from, and forget the oldest of those that are kept."""
    folder = store.run(name)
    state = StateFolder(folder / _OUTPUT)
    keep = {state.manifest, state.plan, state.summary, state.status, state.records, *state.all_steps}
    for path in folder.iterdir():
        if path == state.path:
            for part in path.iterdir():
                if part not in keep:
                    _remove(part)
        elif path.name not in ("run.json", _ENDED):
            _remove(path)
    # Last: until it is done, it is done again.
    with suppress(FileNotFoundError):
        (folder / "run.json").rename(folder / _ENDED)
    ended = sorted(store.folder.glob(f"runs/*/{_ENDED}"), key=lambda path: path.stat().st_mtime)
    for path in ended[:-_MOST_KEPT]:
        store.remove_run(path.parent.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
