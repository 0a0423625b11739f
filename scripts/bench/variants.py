"""How well a part of a job tells which budget, admission and pace are best for the whole of it, order by order.

    python scripts/bench/variants.py mix-1 mix-2 mix-3 mix-4

Each row: seconds of the best variant, all of them simulated whole; and by how much those are slower that a job of more
than 200,000 requests would get: one variant by rule (*few*), and these with what is best on a part (*part*).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from simulate import MIXES, SIMPLE, mix, trace

import blendrun.simulate.portfolio as portfolio
from blendrun.blend.blended import Blender
from blendrun.blend.orders import simple_order
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.names import OrderName
from blendrun.synth.workload import known_lengths
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", help=f"{', '.join(MIXES)}, or traces")
    parser.add_argument("--hardware", default="h100-sxm")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--scale", type=float, default=0.15, help="of the paper's 400,000 requests")
    parser.add_argument("--part", type=int, default=20_000, help="requests of the part")
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"), help="folder of the traces")
    asked = parser.parse_args()
    load_kernels()
    for name in asked.jobs:
        show(name, asked)


def show(name: str, asked: argparse.Namespace) -> None:
    known = name in MIXES
    prompts = mix(name, asked.scale, asked.model) if known else trace(asked.workloads / f"{name}.jsonl.gz")
    card, on = load_card(asked.model), machine(load_hardware(asked.hardware))
    pool, tree, lengths = kv_pool(card, on), build_tree(prompts), known_lengths(prompts)
    costs = demand(tree, prompts, lengths, card, on)
    orders = [simple_order(each, prompts, tree, lengths) for each in SIMPLE if each is not OrderName.SHUFFLED]
    cut = Blender(tree, prompts, lengths, costs, on, pool_tokens=pool.tokens).blend
    run = partial(portfolio.simulate_portfolio, tree, prompts, lengths, orders, [cut(), cut(scattered=True)])
    run = partial(run, card, on, pool=pool, demand=costs)
    every, few = run(thorough=True), run(thorough=False)
    portfolio._LARGE, portfolio._PART = 1, asked.part
    both = run()
    print(f"\n{name}: {len(prompts):,} requests, a part of {both.part:,}")
    print("| row | seconds | few | part |\n|---|---|---|---|")
    for best, one, other in zip(every.candidates, few.candidates, both.candidates, strict=True):
        behind = np.array([one.seconds, other.seconds]) / best.seconds - 1
        print(f"| {best.order}, {best.overlap} | {best.seconds:,.1f} | {behind[0]:.1%} | {behind[1]:.1%} |")


if __name__ == "__main__":
    main()
