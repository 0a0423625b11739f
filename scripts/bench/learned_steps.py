"""How well a machine knows itself: five different jobs, one after the other, where nothing was ever calibrated.

    python scripts/bench/learned_steps.py [JOB ...] [--beside 4,5]

Each job runs once, by the real command on the CPU runtime, with an empty folder of hardware cards and a folder of what
was learned that is empty before the first run. Answers have known lengths (`cuts.py`): what is judged is the time of
steps. Predicted: before the engine starts; corrected: once a tenth of the run had shown its speed; real: the
phase `run` of the summary, from the first request handed over to the last answer (loading the engine is not in it).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cuts import pool_of, write_cut

MODEL = "smollm2-135m"
# Name of a cut, and the part of its groups that keeps a run below 90 s.
JOBS = {"xquad-qa": 0.5, "smoke-mix": 0.4, "instruct": 0.6, "mmlu": 0.6, "translate": 0.4}
# Runs a command while another process keeps one core at work.
_BESIDE = """
import subprocess, sys
busy = subprocess.Popen([sys.executable, "-c", "while True: sum(range(100_000))"])
try:
    done = subprocess.run(sys.argv[1:])
finally:
    busy.kill()
raise SystemExit(done.returncode)
"""


@dataclass(frozen=True)
class Found:
    """One run. Seconds; rests_on: what the prediction came from."""

    job: str
    beside: bool
    rests_on: str
    requests: int
    order: str
    predicted: float
    corrected: float | None
    real: float

    @property
    def error(self) -> float:
        return self.predicted / self.real - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(JOBS)}; default: all, in this order")
    parser.add_argument("--beside", default="", help="numbers of runs that another process keeps a core from: 4,5")
    parser.add_argument("--prefix", default="", help="put in front of each run's command, for example: taskset -c 0,1")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--keep", type=Path, help="folder for the runs' files, to look at; default: removed")
    asked = parser.parse_args()
    slow = {int(number) for number in asked.beside.split(",") if number}
    print("| run | job | requests | order | times | beside | predicted s | corrected s | real s | error | corrected |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found = []
    with TemporaryDirectory(prefix="blendrun-learned-") as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for number, job in enumerate(asked.jobs or JOBS, start=1):
            found.append(run(job, number, folder, shlex.split(asked.prefix), number in slow))
            show(number, found[-1])
    later = [abs(each.error) for each in found[1:]]
    if later:
        print(f"\nfrom the second run on: median error {statistics.median(later):.1%}, worst {max(later):.1%}")
    if asked.json:
        asked.json.write_text(json.dumps([vars(each) for each in found], indent=1))


def run(job: str, number: int, folder: Path, prefix: list[str], slow: bool) -> Found:
    path = write_cut(job, folder, JOBS[job])
    output = folder / f"{number}-{job}.out.jsonl"
    beside = [sys.executable, "-c", _BESIDE] if slow else []
    command = [
        *prefix,
        *beside,
        sys.executable,
        "-m",
        "blendrun",
        "run",
        str(path),
        "--model",
        MODEL,
        "--device",
        "cpu",
    ]
    command += ["-o", str(output), "--quiet", "--engine-arg", f"max_total_tokens={pool_of(job)}"]
    own = {"BLENDRUN_DATA": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    if done.returncode:
        raise SystemExit(f"{job}: exit {done.returncode}\n{done.stderr[-2000:]}")
    summary = json.loads(Path(f"{output}.blendrun/summary.json").read_text())
    plan = summary["plan"]
    return Found(
        job=job,
        beside=slow,
        rests_on=plan["times"] or "rates of the card",
        requests=summary["counts"]["total"],
        order=plan["order"],
        predicted=plan["predicted_seconds"],
        corrected=plan["corrected_seconds"],
        real=summary["seconds"]["run"],
    )


def show(number: int, found: Found) -> None:
    corrected, off = "–", "–"
    if found.corrected is not None:
        corrected, off = f"{found.corrected:.1f}", f"{found.corrected / found.real - 1:+.1%}"
    print(
        f"| {number} | {found.job} | {found.requests} | {found.order} | {found.rests_on} | "
        f"{'yes' if found.beside else ''} | {found.predicted:.1f} | {corrected} | {found.real:.1f} | "
        f"{found.error:+.1%} | {off} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
