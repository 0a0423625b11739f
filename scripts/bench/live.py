"""Orders on the real runtime, by `blendrun bench live`: cuts of the real workloads, as a table.

    python scripts/bench/live.py [JOB ...] [--orders given,...,auto] [--overlap exclusive] [--out live]

Everything that was measured stays in --out: the JSON of each job, records and step logs of every run; `steps.py` reads
from them how a plan was kept. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cuts import write_cut

MODEL = "smollm2-135m"
BLENDRUN = str(Path(sys.executable).with_name("blendrun"))
# Part of each cut's groups, and KV tokens that cannot hold what they share.
SIZES = {
    "xquad-qa": (0.3, 1536),
    "squality": (0.4, 2560),
    "mmlu": (0.35, 3072),
    "instruct": (0.15, 512),
    "smoke-mix": (0.15, 1024),
    "mix": (0.08, 1024),
    "known-case": (1.0, 800),
}
ORDERS = "given,shuffled,sorted,lof,dfs-weight,lpm,blended,auto"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(SIZES)}; default: all")
    parser.add_argument("--orders", default=ORDERS)
    parser.add_argument("--overlap", default="exclusive")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("live"))
    asked = parser.parse_args()
    for job in asked.jobs or SIZES:
        scale, pool = SIZES[job]
        folder = asked.out / job
        folder.mkdir(parents=True, exist_ok=True)
        path = write_cut(job, folder, scale)
        command = [
            BLENDRUN, "bench", "live", str(path), "-m", MODEL, "--orders", asked.orders, "--overlap", asked.overlap,
            "--kv-tokens", str(pool), "--repeat", str(asked.repeat), "--keep", str(folder), "--overwrite", "--json",
            "--plot", str(folder / "live.png"),
        ]  # fmt: skip
        report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        (folder / "live.json").write_bytes(report)
        show(job, json.loads(report))


def show(job: str, report: dict[str, Any]) -> None:
    """Markdown: a row for each order."""
    print(f"\n**{job}**: {report['requests']} requests, {report['prompt_tokens']:,} prompt and", end=" ")
    print(f"{report['output_tokens']:,} output tokens, pool {report['kv_tokens']:,}\n")
    print("| order | seconds | spread | output tok/s | cached | over best simple | over given | predicted s | cached |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in report["rows"]:
        spread = (max(row["seconds"]) - min(row["seconds"])) / row["median"]
        best, given = (ratio(row, name) for name in ("over_best_simple", "over_given"))
        if row["lowest"] is not None:
            best += f" ({row['lowest']:.2f}-{row['highest']:.2f})"
        predicted = row["predicted_seconds"]
        planned = " | " if predicted is None else f"{predicted:.1f} | {row['predicted_hit_rate']:.1%}"
        name = row["order"] if row["chosen"] in (row["order"], "given") else f"{row['order']} ({row['chosen']})"
        print(
            f"| {name} | {row['median']:.1f} | {spread:.0%} | {row['output_per_second']:.0f} | "
            f"{row['hit_rate']:.1%} | {best} | {given} | {planned} |",
            flush=True,
        )


def ratio(row: dict[str, Any], name: str) -> str:
    return "" if row[name] is None else f"{row[name]:.2f}"


if __name__ == "__main__":
    main()
