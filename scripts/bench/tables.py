"""Memory and time of tables in and out, through the replay engine: rows to lines, rows to answers beside them, vectors.

python scripts/bench/tables.py --rows 1000000
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMMAND = str(Path(sys.executable).with_name("blendrun"))
_BATCH = 10_000
_NUMBERS = 1024
_LOOK_SECONDS = 0.05


def rows(count: int) -> Iterator[dict[str, Any]]:
    """As a set of problems has them: a question of some 100 characters, and a solution of some 200."""
    for row in range(count):
        yield {
            "id": f"id-{row}",
            "problem": f'Problem {row}: what, then, is "{row}" and\n{row * 7 % 1000}? Show each step that you take.',
            "solution": "Because the sum of two numbers is what one gets by counting on, the answer follows. " * 2,
            "answer": row,
        }


def write_parquet(path: Path, count: int) -> None:
    made, writer = rows(count), None
    while batch := [row for _, row in zip(range(_BATCH), made, strict=False)]:
        table = pa.Table.from_pylist(batch)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_csv(path: Path, count: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("id", "problem", "solution", "answer"))
        writer.writeheader()
        writer.writerows(rows(count))


def write_inputs(path: Path, count: int) -> None:
    """Lines that ask for vectors."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(count):
            body = {"input": f"text {row}", "dimensions": _NUMBERS, "encoding_format": "base64"}
            file.write(json.dumps({"custom_id": str(row), "url": "/v1/embeddings", "body": body}) + "\n")


def measured(name: str, *words: str) -> None:
    """Run the command and print what it took. Ends the program where it fails."""
    begun, peak, status = time.monotonic(), 0, None
    process = os.posix_spawn(COMMAND, [COMMAND, *words, "-q"], os.environ)
    while status is None:
        # What `wait4` says of memory is this program's too, which the other began as.
        peak = max(peak, _peak(process))
        time.sleep(_LOOK_SECONDS)
        ended, code, used = os.wait4(process, os.WNOHANG)
        status = code if ended else None
    if failed := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(words)}: exit code {failed}")
    seconds, cpu = time.monotonic() - begun, used.ru_utime + used.ru_stime
    print(f"| {name} | {peak / 1024:.0f} MiB | {cpu:.1f} s | {seconds:.1f} s |", flush=True)


def _peak(process: int) -> int:
    """The most memory that it has held, KiB; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=None, help="Lines with a vector. Default: a tenth of the rows.")
    parser.add_argument("--folder", type=Path, help="Where the files go (5 GB for 1,000,000 rows). Default: /tmp.")
    asked = parser.parse_args()
    vectors = asked.rows // 10 if asked.vectors is None else asked.vectors
    with TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        table, text, lines = (str(folder / each) for each in ("t.parquet", "t.csv", "lines.jsonl"))
        write_parquet(Path(table), asked.rows)
        write_csv(Path(text), asked.rows)
        write_inputs(folder / "inputs.jsonl", vectors)
        out = [str(folder / each) for each in ("a.jsonl", "b.jsonl", "c.parquet", "d.csv", "e.parquet")]
        replay = ("--engine", "replay")
        asks = str(folder / "inputs.jsonl")
        print(f"{asked.rows:,} rows, {vectors:,} vectors\n\n| what | peak | processor | wall |\n|---|---|---|---|")
        measured("Parquet to lines", "convert", table, "-o", lines)
        measured("CSV to lines", "convert", text, "-o", str(folder / "others.jsonl"), "--prompt-column", "problem")
        measured("run, lines to lines", "run", lines, "-o", out[0], *replay)
        measured("run, Parquet to lines", "run", table, "-o", out[1], *replay)
        measured("run, Parquet to Parquet", "run", table, "-o", out[2], *replay)
        measured("run, CSV to CSV", "run", text, "-o", out[3], *replay)
        measured(f"run, vectors of {_NUMBERS:,} to Parquet", "run", asks, "-o", out[4], *replay)
        same = filecmp.cmp(out[0], out[1], shallow=False)
        counts = [pq.ParquetFile(path).metadata.num_rows for path in (out[2], out[4])]
        print(f"\nanswers of the table equal those of its lines: {same}; rows {counts[0]:,}, vectors {counts[1]:,}")
        sys.exit(0 if same and counts == [asked.rows, vectors] else 1)


if __name__ == "__main__":
    main()
