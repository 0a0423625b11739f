"""Jobs whose kinds of request stand apart, as real files have them: scripts/bench/contrast.py NAME OUT.jsonl

Each kind is a block of the file: compute-heavy requests (long prompt, short answer), requests that share a prefix in
groups, memory-heavy ones (short prompt, long answer). Prompts are token ids, answers run to their bound. The names say
what a job was made for; `balanced` is balanced for an H100 by the paper's formulas at peak rates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import orjson

GROUP = 24
# By name, a row a kind: requests, prompt tokens, of these shared within a group, output tokens; and the pool that the
# job is meant for.
JOBS = {
    "h200-small-pool": (((300, 1536, 0, 8), (400, 1024, 896, 4), (700, 64, 0, 768)), 100_000),
    "h200-short": (((220, 1536, 0, 8), (300, 1024, 896, 4), (560, 64, 0, 640)), 100_000),
    "h200-no-sharing": (((500, 1536, 0, 8), (800, 64, 0, 512)), 60_000),
    # Of the same kinds, for an engine on a CPU: a rehearsal of scripts/gpu. Three times what its engine is handed at
    # first: of a job handed over at once, half waits on each side, and the sides meet elsewhere than was planned.
    "rehearsal": (((24, 160, 0, 2), (72, 96, 80, 2), (48, 16, 0, 48)), 2_048),
    "balanced": (((654, 1536, 0, 16), (546, 1024, 896, 4), (3183, 64, 0, 1024)), 200_000),
}
# Tokens that all prompts of a kind without groups begin with: its instruction.
INSTRUCTION = 48
# Ids that every tokenizer of a large model has.
LOWEST, HIGHEST = 1000, 40_000


def lines_of(name: str, shuffled: bool = False) -> list[dict[str, object]]:
    """The requests of a job, kind by kind; the same at every call."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, object]] = []
    kinds, _ = JOBS[name]
    for kind, (count, prompt, shared, output) in enumerate(kinds):
        head = rng.integers(LOWEST, HIGHEST, min(INSTRUCTION, prompt - 8))
        for number in range(count):
            if shared and number % GROUP == 0:
                head = rng.integers(LOWEST, HIGHEST, shared)
            ids = [*head.tolist(), *rng.integers(LOWEST, HIGHEST, prompt - len(head)).tolist()]
            body = {"prompt": ids, "max_tokens": output, "ignore_eos": True, "temperature": 0}
            lines.append({"custom_id": f"{kind}-{number}", "url": "/v1/completions", "body": body})
    return [lines[place] for place in rng.permutation(len(lines))] if shuffled else lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=JOBS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shuffled", action="store_true", help="in random order, which is a blend of its own")
    asked = parser.parse_args()
    lines = lines_of(asked.name, asked.shuffled)
    asked.out.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
    print(f"{len(lines):,} requests; meant for a pool of {JOBS[asked.name][1]:,} tokens")


if __name__ == "__main__":
    main()
