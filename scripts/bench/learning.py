"""Lengths that a run learns while it works: answers that are far shorter than their bound, nothing known before.

    python scripts/bench/learning.py [--requests 320]

Passages of xquad with a question each; answers may have 256 tokens and stop at the second word. Nothing is
remembered from earlier runs. For each quarter of the hand-over: expected length when it was handed over, and real one;
then the same job once more, with what the first run left to later ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from cuts import write_cut

BLENDRUN = str(Path(sys.executable).with_name("blendrun"))
BOUND = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=320)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="blendrun-learning-") as name:
        folder = Path(name)
        lines = [orjson.loads(line) for line in write_cut("xquad-qa", folder, 3.0).read_bytes().splitlines()]
        for line in lines:
            line["body"] |= {"max_tokens": BOUND, "stop": [" ", "\n"]}
            line["body"].pop("ignore_eos")
            line.pop("metadata", None)
        job = folder / "learning.jsonl"
        job.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines[: asked.requests]))
        for number, title in enumerate(("nothing known before", "after the first run")):
            show(title, run(job, folder / f"answers-{number}.jsonl", folder / "data"))


def run(job: Path, output: Path, data: Path) -> list[dict[str, int]]:
    """Records in the order of hand-over."""
    command = [BLENDRUN, "run", str(job), "-m", "smollm2-135m", "-o", str(output), "--order", "blended"]
    command += ["--engine-arg", "max_total_tokens=3072", "--engine-arg", "max_running_requests=8"]
    subprocess.run(command, check=True, stderr=sys.stderr, env=os.environ | {"BLENDRUN_DATA": str(data)})
    records = output.with_name(f"{output.name}.blendrun") / "records.jsonl"
    return sorted((json.loads(line) for line in records.read_bytes().splitlines()), key=lambda each: each["index"])


def show(title: str, records: list[dict[str, int]]) -> None:
    print(f"\n**{title}**: {len(records)} requests, bound {BOUND}\n")
    print("| handed over | expected, mean | real, mean | expected over real, median |")
    print("|---|---|---|---|")
    quarter = -(-len(records) // 4)
    for begin in range(0, len(records), quarter):
        part = records[begin : begin + quarter]
        ratios = [each["planned_output"] / max(each["output"], 1) for each in part]
        expected, real = (statistics.mean(each[name] for each in part) for name in ("planned_output", "output"))
        print(f"| {begin} to {begin + len(part) - 1} | {expected:.1f} | {real:.1f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
