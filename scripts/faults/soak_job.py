"""One job that is killed and resumed, and the promises that are checked on the way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("blendrun"))
# A dead engine must be gone within this.
NOTICE_S = 20.0
# Real time enough for kills between answers: some hundred answers a second.
_REPLAY = ("--engine", "replay", "--engine-arg", "slots=8", "--engine-arg", "fail_every=97")
_SLOW = ("--engine-arg", "real_time=400")
# No plan, which would take longer than the requests; few at once, so that a kill finds some that wait.
_SGLANG = ("--model", "smollm2-135m", "--device", "cpu", "--order", "given", "--engine-arg", "max_running_requests=4")
_BAD = (b"not a request", b'{"custom_id": "no body", "url": "/v1/chat/completions"}', b"[]")


class Broken(Exception):  # noqa: N818  # a promise, not an error of this program
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Kill:
    """victim: "run", or which process of the engine. answers: whole records on disk when it died.

    gone: seconds until nothing of it ran.
    """

    victim: str
    phase: str
    answers: int
    gone: float


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: once there are so many more answers, or all are being written, and then after some seconds."""

    answers: int
    writing: bool
    seconds: float


def moment_of(job: SoakJob, chance: random.Random, weights: dict[str, int]) -> Moment:
    """Drawn by weights of: start, answers, write."""
    kind = chance.choices(list(weights), list(weights.values()))[0]
    if kind == "start":
        return Moment(0, False, chance.uniform(0, 20 if job.real else 3))
    if kind == "write" and not job.real:
        return Moment(0, True, chance.uniform(0, 0.05))
    return Moment(chance.randint(1, max(1, job.good // 5)), False, chance.uniform(0, 0.2))


class SoakJob:
    """good, bad: lines that are requests, and that are none. kept: records that were on disk after the last kill."""

    def __init__(self, folder: Path, engine: str, good: int) -> None:
        folder.mkdir()
        self.real, self.good, self.bad = engine == "sglang", good, len(_BAD)
        self.jobs, self.out, self.log = folder / "jobs.jsonl", folder / "out.jsonl", folder / "stderr"
        self.state = folder / "out.jsonl.blendrun"
        self.kept: list[bytes] = []
        self.jobs.write_bytes(b"\n".join([*map(_request, range(good)), *_BAD]) + b"\n")

    def command(self, *, slow: bool) -> list[str]:
        engine = _SGLANG if self.real else (*_REPLAY, *(_SLOW if slow else ()))
        return [COMMAND, "run", str(self.jobs), "-o", str(self.out), *engine]

    def records(self) -> list[bytes]:
        """Whole records of the journal."""
        try:
            return (self.state / "journal").read_bytes().split(b"\n")[1:-1]
        except FileNotFoundError:
            return []

    def check_after_a_kill(self) -> None:
        """What was on disk is there as it was, once; no half answers."""
        records = self.records()
        _expect(records[: len(self.kept)] == self.kept, "a record on disk has changed or is gone")
        keys = [json.loads(record.partition(b" ")[2].partition(b"\t")[0])["key"] for record in records]
        _expect(len(set(keys)) == len(keys), "a request whose answer was on disk ran again")
        if self.out.exists():
            self._check_answers(records)
        self.kept = records

    def check_resumed(self, words: str) -> None:
        """The run says how much it found and how much it hands over: nothing of what was on disk."""
        if self.kept and (run := re.search(r'phase=run detail="(\d+) requests', words)):
            left = self.good - len(self.kept)
            _expect(int(run[1]) == left, f"{run[1]} requests were handed over where {left} were left")

    def finish(self) -> None:
        """Run to the end, and check the end."""
        with self.log.open("w") as log:
            code = subprocess.run(self.command(slow=False), stderr=log, timeout=280).returncode
        words = self.log.read_text()
        _expect(code == 3, f"the last run ended with {code}")
        self.check_resumed(words)
        self.check_after_a_kill()
        _expect(len(self.kept) == self.good, f"{len(self.kept)} records for {self.good} requests")
        _expect(self.out.exists(), "no output")

    def _check_answers(self, records: list[bytes]) -> None:
        answered = self.out.read_bytes().splitlines()
        failed = Path(f"{self.out}.errors.jsonl").read_bytes().splitlines()
        lines_in = self.good + self.bad
        _expect(len(answered) + len(failed) == lines_in, f"{len(answered)} + {len(failed)} lines of {lines_in}")
        ids = [json.loads(line)["custom_id"] for line in (*answered, *failed)]
        ids = [custom_id for custom_id in ids if custom_id is not None and custom_id.startswith("line ")]
        _expect(sorted(ids) == sorted(f"line {row}" for row in range(self.good)), "an answer is there twice, or not")
        on_disk = {record.partition(b"\t")[2] for record in records if b'"ok":true' in record.partition(b"\t")[0]}
        _expect(set(answered) == on_disk, "an answer differs from its record")

    def last_words(self) -> str:
        return self.log.read_text()[-2000:] if self.log.exists() else ""


class Invocation:
    """A run that goes on until it is killed."""

    def __init__(self, job: SoakJob) -> None:
        self.job = job
        with job.log.open("w") as log:
            self.process = subprocess.Popen(job.command(slow=True), stderr=log)

    def kill(self, moment: Moment, chance: random.Random, *, engine: bool) -> Kill | None:
        """Wait for the moment and kill; None where the run ended before. engine: its process, if there is one then."""
        self._await(moment)
        if self.process.poll() is not None:
            self._check_end()
            return None
        family, victim = _descendants(self.process.pid), self.process.pid
        if engine and family:
            victim = chance.choice(family)
        name = "run" if victim == self.process.pid else f"engine: {_name(victim)}"
        begun = time.monotonic()
        if victim != self.process.pid:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            self._see_the_engine_die(victim)
            # Ended with it by now, or begun anew.
            family += _descendants(self.process.pid)
            begun = time.monotonic()
        self.process.kill()
        if self.process.wait() != -signal.SIGKILL and victim == self.process.pid:
            self._check_end()
            return None
        gone = self._await_nothing(family, begun)
        words = self.job.log.read_text()
        self.job.check_resumed(words)
        phases = re.findall(r" phase=(\w+)", words)
        return Kill(name, phases[-1] if phases else "before the first", len(self.job.records()), gone)

    def _await(self, moment: Moment) -> None:
        """Until the moment has come, or the run has ended."""
        wanted = self.job.good if moment.writing else len(self.job.kept) + moment.answers if moment.answers else 0
        # The last kills of a job come when less is left.
        wanted = min(wanted, self.job.good)
        while wanted and self.process.poll() is None and len(self.job.records()) < wanted:
            time.sleep(0.002)
        deadline = time.monotonic() + moment.seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)

    def _see_the_engine_die(self, victim: int) -> None:
        """The run must notice: it ends, or starts an engine anew. It is killed then, too."""
        deadline = time.monotonic() + NOTICE_S
        while self.process.poll() is None and time.monotonic() < deadline and _runs(victim):
            time.sleep(0.05)
        # Time to end by itself, or to begin again.
        time.sleep(1)

    def _check_end(self) -> None:
        # Some lines of the job are bad.
        _expect(self.process.returncode == 3, f"the run ended by itself with {self.process.returncode}")

    def _await_nothing(self, family: list[int], begun: float) -> float:
        """Seconds until no process that the run had started is left."""
        # The engine leads a session of its own, which may have got more processes meanwhile.
        while left := [*filter(_runs, family), *_of_sessions(family)]:
            _expect(time.monotonic() - begun < NOTICE_S, f"processes {left} outlive the run")
            time.sleep(0.01)
        return time.monotonic() - begun


def _request(row: int) -> bytes:
    body = {"messages": [{"role": "user", "content": f"Say {row} in words."}], "max_tokens": 16}
    return json.dumps({"custom_id": f"line {row}", "url": "/v1/chat/completions", "body": body}).encode()


def _descendants(pid: int) -> list[int]:
    """Processes that this one has started, and theirs."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in (child, *_descendants(child))]


def _of_sessions(leaders: list[int]) -> list[int]:
    """Running processes of the sessions that these lead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) in leaders and _runs(int(stat.parent.name)):
                found.append(int(stat.parent.name))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _expect(kept: bool, promise: str) -> None:
    if not kept:
        raise Broken(promise)
