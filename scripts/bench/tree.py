"""What building the prefix tree costs: seconds to sort prompts and find what neighbours share, to make the nodes, and
peak memory. Prompts are synthetic, their ids memory-mapped from a file in the page cache.

    python scripts/bench/tree.py
    python scripts/bench/tree.py 1000000:3e8 --threads 1

Each row is measured in a process of its own, after the compiled loops are loaded ("load": Numba's import and its
cache). "own MiB" is the peak of what the process holds itself (anonymous pages, sampled); "peak MiB" counts the mapped
ids too, which the system can drop, and what making the ids took.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CASES = ("100000:3e7", "100000:3e8", "1000000:3e8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, help="requests:tokens")
    parser.add_argument("--threads", type=int, help="threads that sort; default: all cores")
    parser.add_argument("--folder", type=Path, help="where the ids lie while a case runs; default: the system's")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.cases[0], asked.threads, asked.folder)))
        return
    columns = (
        "requests",
        "tokens",
        "shared",
        "nodes",
        "load",
        "sort+lcp",
        "make nodes",
        "total",
        "own MiB",
        "peak MiB",
    )
    print("  ".join(f"{name:>11}" for name in columns), flush=True)
    for case in asked.cases:
        with tempfile.TemporaryDirectory(prefix="blendrun-bench-", dir=asked.folder) as folder:
            command = [sys.executable, __file__, case, "--measure", "--folder", folder]
            command += ["--threads", str(asked.threads)] if asked.threads else []
            row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print("  ".join(f"{row[name]:>11}" for name in columns), flush=True)


def measure(case: str, threads: int | None, folder: Path) -> dict[str, Any]:
    """One row. The ids are made here too, before the clock starts."""
    from synthetic import synthetic_prompts

    from blendrun.tree.build import shared_tokens, strings, tree_of
    from blendrun.tree.compiled import load_kernels
    from blendrun.tree.sort import sort_strings

    requests, _, tokens = case.partition(":")
    prompts = synthetic_prompts(folder / "ids", int(requests), int(float(tokens)))
    begun = time.perf_counter()
    load_kernels()
    loaded = time.perf_counter()
    with OwnMemory() as memory:
        perm, lcp = sort_strings(strings(prompts), threads=threads)
        ordered = time.perf_counter()
        lengths = prompts.prompt_tokens[perm]
        tree = tree_of(perm, shared_tokens(lengths, lcp, prompts.unit_tokens), lengths)
        done = time.perf_counter()
    return {
        "requests": f"{len(prompts):,}",
        "tokens": f"{tree.prompt_tokens:,}",
        "shared": f"{tree.shared_tokens / tree.prompt_tokens:.1%}",
        "nodes": f"{len(tree):,}",
        "load": f"{loaded - begun:.2f} s",
        "sort+lcp": f"{ordered - loaded:.2f} s",
        "make nodes": f"{done - ordered:.2f} s",
        "total": f"{done - loaded:.2f} s",
        "own MiB": f"{memory.peak_kib / 1024:,.0f}",
        "peak MiB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}",
    }


class OwnMemory:
    """Peak of the anonymous pages of this process within a with statement, looked at every 5 ms."""

    def __init__(self) -> None:
        self.peak_kib = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def now_kib() -> int:
        """What the process holds now."""
        return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

    def _watch(self) -> None:
        while True:
            self.peak_kib = max(self.peak_kib, self.now_kib())
            if self._end.wait(0.005):
                return

    def __enter__(self) -> OwnMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


if __name__ == "__main__":
    main()
