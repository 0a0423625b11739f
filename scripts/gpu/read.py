"""From the folders that rounds.py left to tables in Markdown, predicted beside measured: read.py OUT [OUT...]

Several folders are the parts of one measurement, in order. Steps come from the logs of the rounds: by kind, how many,
and the medians of their time and of the host's share, which is launch to launch less the step before it.
"""

from __future__ import annotations

import json
import statistics
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Rows of a decode step are told apart by these.
_ROWS = (32, 64, 128, 256, 320, 512)
_PAGES = ("machine", "products", "run", "calibrate")


def main() -> None:
    print(tables([Path(word) for word in sys.argv[1:]]))


def tables(folders: list[Path]) -> str:
    """All tables. Raises FileNotFoundError for a folder without rounds.jsonl."""
    rows = [
        json.loads(line) for folder in folders for line in (folder / "rounds.jsonl").read_text().splitlines() if line
    ]
    by_name = {row["round"]: row for row in rows}
    parts = [*_facts(by_name), *_orders(by_name), *_steps(folders), *_not_done(rows)]
    return "\n".join(parts) + "\n"


def _facts(by_name: dict[str, Any]) -> Iterator[str]:
    yield "| what | found |\n|---|---|"
    for name in _PAGES:
        row = by_name.get(name, {})
        for key, value in row.items():
            if key not in ("round", "status", "took", "calibration"):
                yield f"| {name}: {key} | {_text(value)} |"
    step = by_name.get("calibrate", {}).get("calibration", {}).get("step", {})
    for key, value in step.items():
        if key.endswith("_seconds"):
            yield f"| step: {key.removesuffix('_seconds')} | {value * 1e6:.4g} us |"
    if step:
        yield f"| step: mean error of the fit | {step['fit_error']:.1%} |"
    yield ""


def _orders(by_name: dict[str, Any]) -> Iterator[str]:
    predicted = by_name.get("predict", {}).get("predicted", {})
    yield "| engine | order | mode | seconds | of file order | cached | by the card | by calibration | cached by plan |"
    yield "|---|---|---|---|---|---|---|---|---|"
    live = [
        (name.split("-")[0], name, row)
        for name, found in by_name.items()
        if "live" in found
        for row in found["live"]["rows"]
    ]
    first = next((row["median"] for engine, _, row in live if engine == "stock" and row["order"] == "given"), None)
    for engine, _, row in live:
        seconds = " / ".join(f"{each:.1f}" for each in row["seconds"])
        over = f"{first / row['median']:.2f}x" if first else "-"
        names = (engine, row["order"], row["overlap"])
        by_plan = _predicted(predicted.get("calibrated") or predicted.get("card"), names)
        prompt = by_name_prompt(by_name)
        hits = f"{by_plan['cached'] / prompt:.1%}" if by_plan and prompt else "-"
        yield (
            f"| {engine} | {row['order']} | {row['overlap']} | {seconds} | {over} | {row['hit_rate']:.1%} | "
            f"{_seconds(_predicted(predicted.get('card'), names))} | "
            f"{_seconds(_predicted(predicted.get('calibrated'), names))} | {hits} |"
        )
    yield ""


def by_name_prompt(by_name: dict[str, Any]) -> int:
    """Prompt tokens of the job."""
    return next((int(found["live"]["prompt_tokens"]) for found in by_name.values() if "live" in found), 0)


def _predicted(table: dict[str, Any] | None, names: tuple[str, str, str]) -> dict[str, Any] | None:
    """A list on SGLang as it comes is predicted in file order only."""
    for row in (table or {}).get("rows", ()):
        if (row["engine"], row["order"], row["overlap"]) == names:
            return dict(row)
    return None


def _seconds(row: dict[str, Any] | None) -> str:
    return f"{row['seconds']:.1f} s" if row else "-"


def _steps(folders: list[Path]) -> Iterator[str]:
    yield "| log | kind | steps | median ms | host's share, ms |\n|---|---|---|---|---|"
    for folder in folders:
        if not (folder / "logs.tar.gz").exists():
            continue
        with tarfile.open(folder / "logs.tar.gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith("steps.jsonl") else None
                if file is not None:
                    name = member.name.removeprefix("logs/").removesuffix(".steps.jsonl")
                    yield from _kinds(name, [json.loads(line) for line in file.read().splitlines()])
    yield ""


def _kinds(name: str, steps: list[dict[str, Any]]) -> Iterator[str]:
    by_kind: dict[str, list[tuple[float, float | None]]] = {}
    before: dict[str, Any] | None = None
    for step in steps:
        if step.get("seconds") is not None:
            gap = None if before is None or before.get("seconds") is None else step["time"] - before["time"]
            host = None if gap is None or before is None else gap - before["seconds"]
            by_kind.setdefault(_kind(step), []).append((step["seconds"], host))
        before = step
    for kind, found in sorted(by_kind.items()):
        hosts = [host for _, host in found if host is not None]
        share = f"{1e3 * statistics.median(hosts):.2f}" if hosts else "-"
        yield f"| {name} | {kind} | {len(found)} | {1e3 * statistics.median(s for s, _ in found):.2f} | {share} |"


def _kind(step: dict[str, Any]) -> str:
    rows = step["decode_rows"]
    if step["mode"] != "decode":
        return f"{step['mode']}, {'with' if rows else 'without'} decode rows"
    return f"decode, up to {next((most for most in _ROWS if rows <= most), rows)} rows"


def _not_done(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["status"] != "done":
            yield f"- {row['round']}: {row['status']}, {row.get('why', '')}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return "; ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
