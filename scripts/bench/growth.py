"""What a simulation costs as jobs grow in requests, in prompt tokens, and in output tokens.

python scripts/bench/growth.py [--scale 1.0]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from synthetic import synthetic_prompts

from blendrun.blend.base import LEFT, Order
from blendrun.cost.capacity import kv_pool
from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels

# Requests, prompt tokens, factor on the answers.
CASES = (
    (50_000, 15_000_000, 1),
    (50_000, 15_000_000, 8),
    (50_000, 60_000_000, 1),
    (100_000, 30_000_000, 1),
    (200_000, 60_000_000, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests and their tokens")
    scale = parser.parse_args().scale
    load_kernels()
    card, on = load_card("llama-3-8b"), machine(load_hardware("a100-80g"))
    engine, step = SimulatedEngine(kv_pool(card, on).tokens, Overlap.MIXED), step_time(card, on)
    print("| requests | prompt tokens | output tokens | steps | seconds |\n|---|---|---|---|---|")
    for requests, tokens, factor in ((int(scale * r), int(scale * t), f) for r, t, f in CASES):
        with TemporaryDirectory() as folder:
            prompts = synthetic_prompts(Path(folder) / "ids", requests, tokens)
            tree = build_tree(prompts)
            order = Order(OrderName.SORTED, tree.prompt, np.full(requests, LEFT, dtype=np.uint8))
            outputs = np.maximum(prompts.reference.astype(np.int64) * factor, 1)
            begun = time.perf_counter()
            outcome = simulate(tree, prompts, order, outputs, step, engine)
            took = time.perf_counter() - begun
        millions = f"{tokens / 1e6:.0f} M | {outputs.sum() / 1e6:.0f} M"
        print(f"| {requests:,} | {millions} | {outcome.steps:,} | {took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
