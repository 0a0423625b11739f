"""Print a few answers of an output file: python scripts/show_answers.py answers.jsonl [how many]"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson


def main(path: str, wanted: int = 6) -> None:
    lines = Path(path).read_bytes().splitlines()
    step = max(1, len(lines) // wanted)
    print(f"\n{min(wanted, len(lines))} of the {len(lines)} answers in {path}:")
    for line in map(orjson.loads, lines[::step][:wanted]):
        text = line["response"]["body"]["choices"][0]["message"]["content"]
        print(f"  {line['custom_id']:<14} {' '.join(text.split())[:90]}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
