"""What asking equal requests once saves, and what finding them costs.

`run`: a job of which 40 lines in 100 are copies, with `--dedupe auto` and `off` in turns on the real engine, then once
more from a cache. `index`: lines a second of reading a job, CPU time, with digests and without, in turns, each in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHAT = "/v1/chat/completions"
SYSTEM = "You label comments of a survey. Answer with the topic of the comment in a few words."


def write_job(path: Path, rows: int) -> Path:
    """Lines 0 and 1 of each five ask what the third one asks."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            asks = row if row % 5 > 1 else row - row % 5 + 2
            text = f"Comment {asks}: the queue at desk {asks % 7} was long, and the staff were kind to us."
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
            body = {"messages": messages, "max_tokens": 24, "ignore_eos": True, "temperature": 0}
            file.write(json.dumps({"custom_id": f"id {row}", "url": CHAT, "body": body}) + "\n")
    return path


def run_once(folder: Path, jobs: Path, name: str, *words: str) -> dict[str, Any]:
    """Its summary, with how many requests were recorded."""
    out = folder / f"{name}.jsonl"
    command = [sys.executable, "-m", "blendrun", "run", str(jobs), "-o", str(out), "-q", "--overwrite", "--no-resume"]
    subprocess.run([*command, "--model", "smollm2-135m", *words], check=True)
    state = out.with_name(f"{out.name}.blendrun")
    summary: dict[str, Any] = json.loads((state / "summary.json").read_bytes())
    records = state / "records.jsonl"
    summary["asked"] = records.read_bytes().count(b"\n") if records.exists() else 0
    return summary


def compare_runs(rows: int, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = write_job(folder / "jobs.jsonl", rows)
        ratios = []
        for pair in range(pairs):
            found = {mode: run_once(folder, jobs, mode, "--dedupe", mode) for mode in ("off", "auto")}
            ratios.append(found["auto"]["seconds"]["run"] / found["off"]["seconds"]["run"])
            for mode, each in found.items():
                print(f"pair {pair}  {mode:4}  {_shown(each)}")
        print(f"run phase, auto over off: {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})")
        cache = ("--cache", str(folder / "cache"))
        for turn in ("filling", "filled"):
            print(f"cache {turn}  {_shown(run_once(folder, jobs, turn, *cache))}")


def _shown(summary: dict[str, Any]) -> str:
    seconds, tokens = summary["seconds"], summary["tokens"]
    return (
        f"asked {summary['asked']}, copies {summary['taken']['copies']}, from the cache {summary['taken']['cache']}; "
        f"{tokens['output']} output tokens; run {seconds.get('run', 0.0):.1f} s, wall {seconds['wall']:.1f} s"
    )


def compare_indexing(rows: int, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        jobs = write_job(Path(name) / "jobs.jsonl", rows)
        ratios = []
        for _ in range(pairs):
            found = {mode: _index_apart(jobs, mode) for mode in ("off", "auto", "keeps")}
            ratios.append(found["auto"][0] / found["off"][0])
            print("  ".join(f"{mode} {seconds:.2f} s, {peak} MiB" for mode, (seconds, peak) in found.items()))
        print(f"CPU time, with digests over without: {statistics.median(ratios):.3f}")


def _index_apart(jobs: Path, mode: str) -> tuple[float, int]:
    command = [sys.executable, __file__, "--indexed", mode, str(jobs)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(peak)


def index_once(jobs: Path, mode: str) -> None:
    """Print CPU seconds and the process's peak in MiB."""
    from blendrun.jobs.index import index_jobs
    from blendrun.jobs.same import Sameness
    from blendrun.jobs.source import open_sources

    same = None if mode == "off" else Sameness(keeps=mode == "keeps")
    begun = time.process_time()
    with index_jobs(open_sources([jobs], jobs.parent / "spool"), same=same) as job:
        spent = time.process_time() - begun
        expected = len(job) if mode == "off" else len(job) * 3 // 5
        assert len(job.distinct) == expected
    print(f"{spent:.3f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["run", "index"], default="run")
    parser.add_argument("--lines", type=int, help="of the job; 100, or 1,000,000 to index")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--indexed", nargs=2, metavar=("MODE", "JOBS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.indexed:
        index_once(Path(given.indexed[1]), given.indexed[0])
    elif given.what == "index":
        compare_indexing(given.lines or 1_000_000, given.pairs)
    else:
        compare_runs(given.lines or 100, given.pairs)


if __name__ == "__main__":
    main()
