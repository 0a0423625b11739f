"""What a GPU can show about blendrun in minutes, the most telling first; a JSON line after each round.

    python3 rounds.py --out OUT --part first --seconds 330      # beside site.tar.xz, on a machine without network
    python3 rounds.py --out OUT --part second --seconds 480     # the same machine
    .venv/bin/python scripts/gpu/rounds.py --out gpu-out        # make gpu-check: this machine's own SGLang, ten minutes
    .venv/bin/python scripts/gpu/rounds.py --rehearse --out X   # all of it on the CPU, with a tiny model

No weights are needed: Llama-3-8B's dimensions, random weights, token ids in, answers of fixed length. That says
nothing about answers and everything about time. OUT then has rounds.jsonl, logs.tar.gz and summary.txt, as far as the
rounds came; a round that would not end in the time that is left is skipped and says so. scripts/gpu/read.py makes
tables of it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# What is unpacked stays for the next call on the same machine.
UNPACKED = Path(tempfile.gettempdir()) / "blendrun-gpu-site"
# For SGLang on another torch than its compiled parts were made for: the kernels' version would be checked, and the tree
# in Rust takes tensors of int64 for int8.
CARRIED = {
    "HF_HUB_OFFLINE": "1",
    "SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK": "1",
    "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": "python",
}
# Left for packing the logs.
SPARE_S = 8.0
_TEXT = 4000


@dataclass(slots=True)
class Diary:
    """What is written while rounds go on. until: by `time.monotonic()`."""

    out: Path
    until: float
    logs: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.until - time.monotonic() - SPARE_S

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row and all logs so far, before the next round can fail."""
        self.rows.append(row)
        with (self.out / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:_TEXT], flush=True)
        whole = self.out / "logs.tar.gz"
        made = self.out / ".logs.tar.gz"
        with tarfile.open(made, "w:gz", compresslevel=3) as archive:
            archive.add(self.logs, arcname="logs")
        made.replace(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("first", "second", "all"), default="all")
    parser.add_argument("--rounds", help="names, comma-separated: only these")
    parser.add_argument("--seconds", type=float, help="for all rounds; default 600, and 3600 in a rehearsal")
    parser.add_argument("--hardware", help="card for predictions before anything is measured; default: what is found")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a tiny model")
    asked = parser.parse_args()
    # A rehearsal shows that all of it works, on however slow a machine.
    seconds = asked.seconds or (3600 if asked.rehearse else 600)
    until = float(os.environ.get("BLENDRUN_ROUNDS_UNTIL") or time.monotonic() + seconds)
    if (HERE / "site.tar.xz").exists() and not os.environ.get("BLENDRUN_ROUNDS_UNTIL"):
        _unpacked_again(until)
    # Only now is what was carried on the path.
    import measure

    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="blendrun-rounds-") as scratch:
        logs = Path(scratch) / "logs"
        logs.mkdir()
        diary = Diary(asked.out, until, logs)
        place = measure.Place.of(HERE, Path(scratch), rehearse=asked.rehearse, hardware=asked.hardware)
        chosen = asked.rounds.split(",") if asked.rounds else None
        for each in measure.rounds_of(place):
            if each.name in chosen if chosen else asked.part in ("all", each.part):
                diary.add(_run(each, diary, place))
    summary = measure.summary(diary.rows)
    (asked.out / "summary.txt").write_text(summary)
    print(summary)
    if any(row["status"] == "failed" for row in diary.rows):
        sys.exit(1)


def _run(each: Any, diary: Diary, place: Any) -> dict[str, Any]:
    """One round's row: its result, or why there is none. Nothing that a round raises ends the others."""
    if diary.left < each.seconds:
        why = f"takes {each.seconds:.0f} s, and {max(diary.left, 0):.0f} s are left"
        return {"round": each.name, "status": "skipped", "why": why}
    begun = time.monotonic()
    try:
        found = each.run(place, diary)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this round's result
        found = {"status": "failed", "why": f"{type(error).__name__}: {error}"[-_TEXT:]}
    return {"round": each.name, "status": "done", "took": round(time.monotonic() - begun, 1), **found}


def _unpacked_again(until: float) -> None:
    """Starts this script anew with the carried packages first on the path; all of them compiled by all cores."""
    done = UNPACKED / "whole"
    if not done.exists():
        with tarfile.open(HERE / "site.tar.xz") as archive:
            archive.extractall(UNPACKED, filter="data")
        compileall.compile_dir(UNPACKED, quiet=2, workers=0)
        done.touch()
    path = os.pathsep.join(filter(None, (str(UNPACKED), os.environ.get("PYTHONPATH"))))
    told = {"PYTHONPATH": path, "BLENDRUN_ROUNDS_UNTIL": str(until), **CARRIED}
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | told)


if __name__ == "__main__":
    main()
