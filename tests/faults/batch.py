"""One job and its output, on which several invocations of the real command work, with the replay engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.command import REPLAY, await_answers, blendrun, ids, lines_of, start, write_jobs

# About 20 answers a second, with few in flight, so that there is time for a fault.
SLOW = ("--engine-arg", "slots=2", "--engine-arg", "decode_rate=10", "--engine-arg", "real_time=100")
STATED = {"metadata": {"reference_output_tokens": 100}}


class Batch:
    """`rows` requests of the file `jobs`, answered into `out`."""

    def __init__(self, jobs: Path, out: Path, rows: int, **fields: Any) -> None:
        self.jobs, self.out, self.rows = jobs if jobs.exists() else write_jobs(jobs, rows, **fields), out, rows
        self.state = out.with_name(f"{out.name}.blendrun")
        self.journal = self.state / "journal"
        self.command = ("run", self.jobs, "-o", self.out, *REPLAY)

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return blendrun(*self.command, *words, **options)

    def kill_after(self, answers: int) -> list[bytes]:
        """A run that is killed when it has this many answers; the records that it left."""
        process = start(*self.command, *SLOW, stderr=subprocess.DEVNULL)
        await_answers(self.journal, answers, process)
        process.kill()
        assert process.wait() == -9, "too fast for this test: slow the engine down"
        return self.records()

    def copied(self, folder: Path) -> Batch:
        """The same files in another folder, with all that was done so far."""
        shutil.copytree(self.jobs.parent, folder, dirs_exist_ok=True)
        return Batch(folder / self.jobs.name, folder / self.out.name, self.rows)

    def records(self) -> list[bytes]:
        """Whole records of the journal, in its order."""
        content = self.journal.read_bytes() if self.journal.exists() else b""
        return content.split(b"\n")[1:-1]

    def check(self, kept: list[bytes]) -> None:
        """All is answered once, in order; the records `kept` are as they were and were not made again."""
        assert ids(self.out) == [f"id {row}" for row in range(self.rows)]
        records = self.records()
        assert records[: len(kept)] == kept, "what was answered stays as it is"
        answers = [json.loads(record.partition(b"\t")[2]) for record in records]
        assert len({answer["custom_id"] for answer in answers}) == len(answers) == self.rows, "nothing ran twice"
        assert sorted(map(str, answers)) == sorted(map(str, lines_of(self.out)))

    def finish(self, kept: list[bytes], *words: str) -> subprocess.CompletedProcess[str]:
        """The same command again, to the end."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        self.check(kept)
        return done


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence with which a command ended."""
    last = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr, done.stderr
    return last
