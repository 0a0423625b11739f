"""unkept.jsonl: answers that do not keep the form that their request was promised, a line each, in input order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from blendrun.errors import unwritable
from blendrun.files import write_atomically
from blendrun.jobs.job import Job
from blendrun.store.ledger import ANSWERED, Ledger


class UnkeptAnswers:
    """A list beside the journal. It is written as answers come, so that it is there whatever ends the run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, job: Job, row: int, key: bytes, custom_id: str, reason: str) -> None:
        """Row `row`, whose work `key` names, has an answer that breaks its promise. Raises OutputUnavailableError."""
        name, number = job.where(row)
        entry = {"id": f"batch_req_{key.hex()}", "custom_id": custom_id, "reason": reason, "line": number}
        if len(job.sources) > 1:
            entry["file"] = name
        try:
            with self._path.open("ab") as file:
                file.write(orjson.dumps(entry) + b"\n")
        except OSError as error:
            raise unwritable(self._path, error, "the same command resumes") from error

    def settle(self, job: Job, ledger: Ledger, salt: bytes) -> int:
        """Put the list into input order, without answers that are no longer this job's. Returns how many are left.

        Raises OutputUnavailableError.
        """
        entries = self._read()
        if not entries:
            return 0
        live = []
        for row in range(len(job)):
            if ledger.state[row] == ANSWERED:
                entry = entries.get(f"batch_req_{job.key(row, salt).hex()}")
                if entry is not None:
                    live.append(orjson.dumps(entry) + b"\n")
        write_atomically(self._path, b"".join(live))
        return len(live)

    def _read(self) -> dict[str, dict[str, Any]]:
        """By id. What a crash has cut short is passed over: its request runs again."""
        found = {}
        try:
            with self._path.open("rb") as file:
                for line in file:
                    try:
                        entry = orjson.loads(line)
                        found[entry["id"]] = entry
                    except (orjson.JSONDecodeError, KeyError, TypeError):
                        continue
        except FileNotFoundError:
            return {}
        return found
