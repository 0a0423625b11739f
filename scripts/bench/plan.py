"""What planning costs beyond the tokenizer: tree, lengths, cost, blend, hits of the orders, each a row, and the whole.

    python scripts/bench/plan.py
    python scripts/bench/plan.py 1000000:3e8

Prompts are synthetic, their ids memory-mapped from a file in the page cache. Each case is measured in a process of its
own, after the compiled loops are loaded. "own MiB" is the peak of what the process holds itself up to that stage.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = ("100000:3e7", "1000000:3e8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, help="requests:tokens")
    parser.add_argument("--folder", type=Path, help="where the ids lie while a case runs; default: the system's")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.cases[0], asked.folder)))
        return
    print(f"{'requests':>10} {'tokens':>12} {'stage':>10} {'seconds':>8} {'own MiB':>8}")
    for case in asked.cases:
        with tempfile.TemporaryDirectory(prefix="blendrun-bench-", dir=asked.folder) as folder:
            command = [sys.executable, __file__, case, "--measure", "--folder", folder]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for stage, seconds, memory in result["stages"]:
            print(f"{result['requests']:>10,} {result['tokens']:>12,} {stage:>10} {seconds:>8.2f} {memory:>8,.0f}")
        print(flush=True)


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of each stage."""
    from synthetic import synthetic_prompts
    from tree import OwnMemory

    from blendrun.blend.blended import Blender
    from blendrun.blend.orders import simple_order
    from blendrun.cost.capacity import kv_pool
    from blendrun.cost.formulas import demand
    from blendrun.cost.hardware import load_hardware, machine
    from blendrun.lengths.estimate import estimate
    from blendrun.models.cards import load_card
    from blendrun.names import OrderName
    from blendrun.tree.build import build_tree
    from blendrun.tree.compiled import load_kernels
    from blendrun.tree.hits import lru_hits

    requests, _, tokens = case.partition(":")
    prompts = synthetic_prompts(folder / "ids", int(requests), int(float(tokens)))
    card, on = load_card("llama-3-8b"), machine(load_hardware("h100-sxm"))
    pool = kv_pool(card, on)
    load_kernels()
    stages: list[tuple[str, float, float]] = []
    whole = time.perf_counter()
    with OwnMemory() as memory:

        def stage(name: str, work: Callable[[], Any]) -> Any:
            begun = time.perf_counter()
            result = work()
            stages.append((name, time.perf_counter() - begun, memory.peak_kib / 1024))
            return result

        tree = stage("tree", lambda: build_tree(prompts))
        lengths = stage("lengths", lambda: estimate(prompts, tree))
        costs = stage("cost", lambda: demand(tree, prompts, lengths, card, on))
        made = stage("blend", lambda: Blender(tree, prompts, lengths, costs, on, pool_tokens=pool.tokens).blend())
        orders = stage(
            "orders",
            lambda: [simple_order(name, prompts, tree, lengths) for name in OrderName if name is not OrderName.BLENDED],
        )
        stage("hits", lambda: [lru_hits(tree, order.prompt, pool.tokens) for order in (*orders, made.order)])
    stages.append(("all", time.perf_counter() - whole, memory.peak_kib / 1024))
    return {"requests": len(prompts), "tokens": tree.prompt_tokens, "stages": stages}


if __name__ == "__main__":
    main()
