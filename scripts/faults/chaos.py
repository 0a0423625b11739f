"""Everything at once, at random: kills, signals, full disks, servers that misbehave and die, other replicas and limits.

After each invocation: what was answered before is there as it was, once; nothing of it was asked again; the exit code
is one that is promised. At the end of each job an invocation without faults gives every line once.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos_server import ChaosServer
from soak_job import COMMAND, Broken

LINES = 600
_FAULTS = ("kill", "kill", "signal", "disk", "disk", "call", "away", "none")
_ENDS = {0, 3, 69, 73, 75, 130, -signal.SIGKILL}
_CALLS = ("open", "write", "read", "fsync", "rename", "unlink", "mkdir", "ftruncate", "stat")
_SECONDS = 120.0
_BAD = (b"not a request", b'{"custom_id": "no body", "url": "/v1/chat/completions"}')


class ChaosJob:
    """One job, on the replay engine or on servers. kept: journal records that were on disk after the last round."""

    def __init__(self, folder: Path, servers: list[ChaosServer], chance: random.Random, library: Path | None) -> None:
        folder.mkdir()
        self.folder, self.servers, self.chance, self.library = folder, servers, chance, library
        self.jobs, self.out, self.log = folder / "jobs.jsonl", folder / "out" / "a.jsonl", folder / "stderr"
        self.out.parent.mkdir()
        self.kept: list[bytes] = []
        self.jobs.write_bytes(b"\n".join([*map(_request, range(LINES)), *_BAD]) + b"\n")
        self.ends: Counter[tuple[str, int]] = Counter()
        self.words = ""

    @property
    def finished(self) -> bool:
        """Whether every request has a record."""
        return len(self.kept) == LINES

    def round(self) -> None:
        """One invocation, and what is promised of it. Raises Broken."""
        fault = self.chance.choice(_FAULTS)
        again = self.chance.random() < 0.15
        code = self._invoke(fault, self._options(again))
        self.ends[fault, code] += 1
        # One that came as Python was ending, with all done.
        done = "\nanswers " in self.words or "nothing to do" in self.words
        late = fault == "signal" and code < 0 and done
        _expect(code in _ENDS or late, f"{fault}: exit code {code}")
        self._check(forgets_errors=again)

    def finish(self) -> None:
        """The end of it."""
        for server in self.servers:
            server.come()
        code = self._invoke("none", [])
        _expect(code in (0, 3), f"the last run ended with {code}")
        self._check()
        _expect(self._lines() == LINES + len(_BAD), "not every line is there")

    def _options(self, again: bool) -> list[str]:
        chance, options = self.chance, []
        if chance.random() < 0.3:
            options += ["--limit", str(chance.randint(1, LINES))]
        if not self.servers and chance.random() < 0.5:
            options += ["--replicas", str(chance.randint(1, 3))]
        if again:
            options += ["--retry-errors"]
        return options

    def _engine(self) -> list[str]:
        if not self.servers:
            speed = self.chance.choice(("real_time=0", "real_time=10", "real_time=30", "real_time=100"))
            settings = ["slots=4", "fail_every=37", speed]
            return ["--engine", "replay", *(word for setting in settings for word in ("--engine-arg", setting))]
        several = self.chance.sample(self.servers, self.chance.randint(1, len(self.servers)))
        settings = ["wait=1", "tries=4", "backoff=0.01", f"concurrency={self.chance.choice((2, 8, 32))}"]
        words = [word for setting in settings for word in ("--engine-arg", setting)]
        return ["--engine", ",".join(server.address for server in several), *words, "--max-restarts", "1"]

    def _invoke(self, fault: str, options: list[str]) -> int:
        """Its exit code."""
        for server in self.servers:
            server.come()
            server.forget()
        words = [COMMAND, "run", str(self.jobs), "-o", str(self.out), *self._engine(), *options]
        with self.log.open("w") as log:
            process = subprocess.Popen(words, stderr=log, env=os.environ | self._variables(fault))
        try:
            self._disturb(fault, process)
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(f"{fault}: still there after {_SECONDS:g} s") from None
        finally:
            process.kill()
            process.wait()
            self.words = self.log.read_text(errors="replace")
        _expect("Traceback" not in self.words, f"{fault}: a traceback")
        return code

    def _variables(self, fault: str) -> dict[str, str]:
        """What has the preloaded library refuse calls of the process."""
        if self.library is None or fault not in ("disk", "call"):
            return {}
        kind, error, always, most = "write", errno.ENOSPC, 1, 400
        if fault == "call":
            kind = self.chance.choice(_CALLS)
            error, always, most = errno.EIO, self.chance.randint(0, 1), 40
        armed = f"{kind}:{self.chance.randint(1, most)}:{error}:{always}:{self.out.parent.resolve()}"
        return {"LD_PRELOAD": str(self.library), "BLENDRUN_REFUSE_ARM": armed}

    def _disturb(self, fault: str, process: subprocess.Popen[bytes]) -> None:
        if fault == "away" and self.servers:
            # While it works: one of them, or all, and perhaps one comes back.
            self._sleep(process, self.chance.uniform(0.3, 1.5))
            for server in self.chance.sample(self.servers, self.chance.randint(1, len(self.servers))):
                server.leave()
            if self.chance.random() < 0.5:
                self._sleep(process, self.chance.uniform(0, 1.0))
                self.chance.choice(self.servers).come()
        if fault == "kill":
            self._sleep(process, self.chance.uniform(0.2, 2.5))
            process.kill()
        if fault == "signal":
            # Before that it is Python alone that has it.
            while process.poll() is None and not self.log.stat().st_size:
                time.sleep(0.005)
            self._sleep(process, self.chance.uniform(0, 1.5))
            process.send_signal(self.chance.choice((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)))

    def _sleep(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)

    def _check(self, *, forgets_errors: bool = False) -> None:
        """0 lost, 0 doubled, 0 changed."""
        records = self._records()
        wanted = self.kept if not forgets_errors else [each for each in self.kept if b'"ok":true' in each[:200]]
        # A run that did not come so far has forgotten nothing.
        stands = records[: len(wanted)] == wanted or records[: len(self.kept)] == self.kept
        _expect(stands, "a record is lost or changed")
        keys = [each[9:].partition(b"\t")[0][:60] for each in records]
        _expect(len(set(keys)) == len(keys), "a request has two records")
        on_disk = {json.loads(each.partition(b"\t")[2])["custom_id"] for each in wanted}
        asked = {f"line {text}" for server in self.servers for text in list(server.asked)}
        _expect(not asked & on_disk, f"asked again: {sorted(asked & on_disk)[:3]}")
        if self.out.exists():
            self._lines()
        self.kept = records

    def _lines(self) -> int:
        """Lines of the output and of the errors file, each once, each answer as it is in the journal."""
        answered = self.out.read_bytes().splitlines()
        errors = Path(f"{self.out}.errors.jsonl")
        failed = errors.read_bytes().splitlines() if errors.exists() else []
        ids = [json.loads(line)["custom_id"] for line in (*answered, *failed)]
        named = [each for each in ids if each is not None]
        _expect(len(set(named)) == len(named), "a line is there twice")
        on_disk = {each.partition(b"\t")[2] for each in self._records()}
        _expect(set(answered) <= on_disk, "an answer differs from its record")
        return len(ids)

    def _records(self) -> list[bytes]:
        with suppress(FileNotFoundError):
            return (self.out.with_name("a.jsonl.blendrun") / "journal").read_bytes().split(b"\n")[1:-1]
        return []


def chaos(rounds: int, seed: int) -> int:
    """Prints a table. Returns an exit code: 1 where a promise was broken."""
    chance, begun, jobs = random.Random(seed), time.monotonic(), 0
    ends: Counter[tuple[str, int]] = Counter()
    with TemporaryDirectory(prefix="blendrun-chaos-") as text:
        folder = Path(text)
        library = _library(folder)
        done = 0
        while done < rounds:
            servers = [ChaosServer(chance.randrange(2**32)) for _ in range(2)] if jobs % 2 else []
            job = ChaosJob(folder / f"job {jobs}", servers, chance, library)
            try:
                for _ in range(min(chance.randint(5, 12), rounds - done)):
                    finished = job.finished
                    job.round()
                    done += 1
                    if finished:
                        break
                job.finish()
            except Broken as broken:
                sys.stderr.write(f"round {done}, job {jobs}: {broken}\n\nThe last words of the run:\n")
                sys.stderr.write(f"{job.words[-3000:]}\n")
                return 1
            finally:
                for server in servers:
                    server.leave()
            jobs += 1
            ends += job.ends
            shutil.rmtree(job.folder, ignore_errors=True)
            sys.stderr.write(f"{done} of {rounds} rounds\n")
    sys.stdout.write(f"{done} rounds, {jobs} jobs of {LINES + len(_BAD)} lines, {time.monotonic() - begun:.0f} s\n\n")
    codes = sorted({code for _, code in ends})
    sys.stdout.write(f"| fault | {' | '.join(map(str, codes))} |\n|---|{'---|' * len(codes)}\n")
    for fault in sorted({fault for fault, _ in ends}):
        sys.stdout.write(f"| {fault} | {' | '.join(str(ends[fault, code]) for code in codes)} |\n")
    sys.stdout.write("\n0 lost, 0 doubled, 0 changed, none of those on disk asked again\n")
    return 0


def _library(folder: Path) -> Path | None:
    """The library that refuses system calls; None where there is no gcc to make it."""
    if shutil.which("gcc") is None:
        sys.stderr.write("no gcc: disks do not fill up in this run\n")
        return None
    library = folder / "refuse.so"
    source = Path(__file__).with_name("refuse.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def _request(row: int) -> bytes:
    body = {"messages": [{"role": "user", "content": str(row)}], "max_tokens": 16}
    return json.dumps({"custom_id": f"line {row}", "url": "/v1/chat/completions", "body": body}).encode()


def _expect(kept: bool, promise: str) -> None:
    if not kept:
        raise Broken(promise)
