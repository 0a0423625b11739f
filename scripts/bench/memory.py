"""Memory of the runner on a long job: a whole run through the replay engine, and one that is resumed from half way.

python scripts/bench/memory.py --lines 1000000
python scripts/bench/memory.py --lines 100000 --vectors 1024
"""

from __future__ import annotations

import argparse
import filecmp
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

COMMAND = str(Path(sys.executable).with_name("blendrun"))
# The text of a prompt: the length of a sentence or two, as in classification.
_WORDS = "the quick brown fox jumps over the lazy dog while nobody looks at the clock on the wall "
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds since the start; bytes of memory that the process holds, and of the journal."""

    seconds: float
    resident: int
    journal: int


@dataclass(frozen=True, slots=True)
class Watched:
    """One invocation. peak: bytes, the kernel's high-water mark of the resident memory."""

    samples: list[Sample]
    peak: int
    seconds: float
    code: int


def write_jobs(path: Path, lines: int, vectors: int) -> None:
    """vectors: numbers of each answer, of lines that ask for vectors; 0 for chats."""
    with path.open("wb") as file:
        for row in range(lines):
            content = f"{_WORDS}{row}: {_WORDS[row % 40 :]}"
            if vectors:
                body: dict[str, object] = {"input": content, "dimensions": vectors}
                file.write(json.dumps({"custom_id": f"request-{row}", "url": "/v1/embeddings", "body": body}).encode())
                file.write(b"\n")
                continue
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 64 + row % 64}
            line = {"custom_id": f"request-{row}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line).encode() + b"\n")


def listener(
    jobs: Path, out: Path, every: float, log: Path, stop: Callable[[Sample], bool] = lambda sample: False
) -> Watched:
    """Run the command, looking at its memory every so many seconds; kill -9 when `stop` says so."""
    journal = out.with_name(f"{out.name}.blendrun") / "journal"
    begun, samples, peak = time.monotonic(), [], 0
    with log.open("ab") as errors:
        command = [COMMAND, "run", str(jobs), "-o", str(out), "--engine", "replay"]
        process = subprocess.Popen(command, stderr=errors)
        while process.poll() is None:
            resident, high = _memory(process.pid)
            peak = max(peak, high)
            written = journal.stat().st_size if journal.exists() else 0
            samples.append(Sample(time.monotonic() - begun, resident, written))
            if stop(samples[-1]):
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
            time.sleep(every)
    return Watched([sample for sample in samples if sample.resident], peak, time.monotonic() - begun, process.wait())


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes now, and the most so far; zeros where the process has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    return tuple(int(found[name].split()[0]) * 1024 if name in found else 0 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def over_time(watched: Watched, first: int, last: int) -> str:
    """Resident MiB as the journal grows from `first` to `last` bytes: at its start, its quarters, its end."""
    figures = []
    for share in (0.02, 0.25, 0.5, 0.75, 1.0):
        wanted = first + share * (last - first)
        # What comes behind the last answer (writing the files) is the peak's to tell.
        found = next((sample for sample in watched.samples if sample.journal >= wanted), watched.samples[-1])
        figures.append(f"{found.resident / _MIB:.0f}")
    return " | ".join(figures)


def line_of(name: str, watched: Watched, first: int, last: int) -> str:
    times = f"{watched.seconds:.0f} s | {watched.code}"
    return f"| {name} | {watched.peak / _MIB:.0f} MiB | {over_time(watched, first, last)} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=0, help="Lines ask for vectors of so many numbers, not to chat.")
    parser.add_argument("--every", type=float, default=0.5, help="Seconds between two looks.")
    parser.add_argument("--folder", type=Path, help="Where the files go (3 GB for 1,000,000 lines). Default: /tmp.")
    asked = parser.parse_args()
    with TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        jobs, out, log = folder / "jobs.jsonl", folder / "out.jsonl", folder / "log"
        write_jobs(jobs, asked.lines, asked.vectors)
        print(f"{asked.lines:,} lines, {jobs.stat().st_size / _MIB:.0f} MiB; resident MiB over the run phase\n")
        print("| run | peak | 2 % | 25 % | 50 % | 75 % | 100 % | took | exit |\n|---|---|---|---|---|---|---|---|---|")
        whole = listener(jobs, out, asked.every, log)
        size = (folder / "out.jsonl.blendrun" / "journal").stat().st_size
        print(line_of("whole", whole, 0, size), flush=True)
        if not out.exists():
            sys.exit(log.read_text())

        second = folder / "second.jsonl"
        half = listener(jobs, second, min(asked.every, 0.05), log, stop=lambda sample: sample.journal > size / 2)
        left = half.samples[-1].journal
        print(line_of("killed half way", half, 0, left), flush=True)
        again = listener(jobs, second, asked.every, log)
        print(line_of("resumed", again, left, size), flush=True)
        end = (folder / "second.jsonl.blendrun" / "journal").stat().st_size
        same = second.exists() and filecmp.cmp(out, second, shallow=False)
        print(f"\nresumed answers equal those of the whole run: {same}; journals {size:,} and {end:,} bytes")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
