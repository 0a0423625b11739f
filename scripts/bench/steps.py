"""How a plan was kept, from the files that `bench live --keep FOLDER` left: records and step logs of `blended`.

    python scripts/bench/steps.py live/xquad-qa [...] [--overlap exclusive]

promised: cached tokens that the runtime reported over those that the plan promised, and over what a cache without
bounds would have had. order: whether requests were admitted in the order of the plan. pool: share of the pool that
running requests hold, and with what is cached, on average over the time until the last admission. budget: prefill
tokens of a step over the step's budget while requests wait, mean and standard deviation; steps without prefill are 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

Step = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--overlap", default="exclusive")
    asked = parser.parse_args()
    print("| job | cached | of the plan's | of the possible | in plan order | pool in use | with cached", end=" | ")
    print("retracted | prefill of a step over its budget | predicted over measured |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for folder in asked.folders:
        show(folder, asked.overlap)


def show(folder: Path, overlap: str) -> None:
    report = json.loads((folder / "live.json").read_text())
    [row] = [row for row in report["rows"] if row["order"] == "blended" and row["overlap"] == overlap]
    records = [
        [orjson.loads(line) for line in path.read_bytes().splitlines()]
        for path in sorted(folder.glob(f"blended-{overlap}-*.records.jsonl"))
    ]
    runs = list(rounds(folder / f"ours-plan-{overlap}.steps.jsonl"))
    cached = np.mean([sum(each["cached"] for each in lines) for lines in records])
    possible = sum(each["planned_hit"] for each in records[0])
    promised = row["predicted_hit_rate"] * report["prompt_tokens"]
    held, full = zip(*(filling(steps, report["kv_tokens"]) for steps in runs), strict=True)
    errors = [row["predicted_seconds"] / seconds - 1.0 for seconds in row["seconds"]]
    print(
        f"| {folder.name} | {row['hit_rate']:.1%} | {cached / promised:.1%} | {cached / possible:.1%} | "
        f"{'yes' if all(map(in_order, runs)) else 'no'} | {np.mean(held):.0%} | {np.mean(full):.0%} | "
        f"{sum(steps[-1]['retracted'] - steps[0]['retracted'] for steps in runs)} | {budget(runs)} | "
        f"{np.median(errors):+.1%} |"
    )


def rounds(path: Path) -> Iterator[list[Step]]:
    """The steps of each run: one begins where the plan's first request is admitted for the first time."""
    run: list[Step] = []
    seen: set[int] = set()
    for line in path.read_bytes().splitlines():
        step = orjson.loads(line)
        if 0 in step["admitted"] and len(seen) > 1 and 0 in seen and 0 not in sent_back(run):
            yield run
            run, seen = [], set()
        run.append(step)
        seen |= set(step["admitted"])
    yield run


def sent_back(run: list[Step]) -> set[int]:
    return {place for step in run for place in step["sent_back"]}


def in_order(run: list[Step]) -> bool:
    """But for those that were sent back and come again."""
    again = sent_back(run)
    first = [place for step in run for place in step["admitted"] if place not in again]
    return all(one < other for one, other in pairwise(first))


def filling(run: list[Step], pool: int) -> tuple[float, float]:
    last = max(place for place, step in enumerate(run) if step["admitted"])
    until = run[: last + 1]
    weights = np.array([step["seconds"] for step in until])
    used = np.array([step["kv_used"] for step in until])
    cached = np.array([step["evictable"] for step in until])
    return float(np.average(used, weights=weights) / pool), float(np.average(used + cached, weights=weights) / pool)


def budget(runs: list[list[Step]]) -> str:
    shares = [
        step["prefill_tokens"] / step["budget"] for run in runs for step in run if step["budget"] and step["waiting"]
    ]
    return "none" if not shares else f"{np.mean(shares):.2f} ± {np.std(shares):.2f}"


if __name__ == "__main__":
    main()
