"""How near the blend comes to the practical bound in jobs of 1,000 to 400,000 requests, and to the best simple order.

    python scripts/bench/short.py                           # jobs that nothing was tuned on, up to 30,000 requests
    python scripts/bench/short.py --tune --hardware h100-sxm
    python scripts/bench/short.py mix-2:400000:1 servegen-r1-a:1000:test

A job is mix-1 to mix-4 (docs/paper.md#workloads) of so many requests by that seed, or a trace: of its first half
("tune") or its second one ("test") so many requests from the front, 0 for all. Prompts that the pool cannot hold are
left out.

Columns: bound: docs/paper.md#the-practical-bound. blended, of bound: the blend with its best mode and budget. mixed:
the same on mixed steps alone, of the bound of mixed steps. overlap alone: what the blend would be "of the bound" if
that was arithmetic and reads overlapped, nothing else. over simple: the best simple order fed by us over the blend.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from simulate import MIXES, SIMPLE, trace

from blendrun.blend.blended import Blender
from blendrun.blend.orders import simple_order
from blendrun.cost.balance import bound_seconds
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.portfolio import Candidate, simulate_portfolio
from blendrun.simulate.practical import practical_bound
from blendrun.simulate.seconds import overlapped
from blendrun.simulate.simulator import RATES, SHARES
from blendrun.simulate.steptime import step_time
from blendrun.synth.recipe import Recipe
from blendrun.synth.workload import known_lengths, synthesise
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels

MODEL = "llama-3-8b"
SIZES = (1_000, 5_000, 30_000)
TUNE = (
    *(f"{name}:{size}:0" for size in SIZES for name in ("mix-1", "mix-4")),
    *(f"{name}:{size}:tune" for size in (1_000, 5_000) for name in ("azure-2023", "servegen-r1-a")),
)
TEST = (
    *(f"{name}:{size}:1" for size in SIZES for name in MIXES),
    *(f"{name}:{size}:test" for size in (1_000, 5_000) for name in ("azure-2023", "servegen-r1-a")),
    *(f"mooncake-conversation:{size}:test" for size in (1_000, 5_000)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help="name:requests:seed or name:requests:half")
    parser.add_argument("--tune", action="store_true", help="the jobs that constants were chosen by")
    parser.add_argument("--hardware", default="a100-80g")
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"), help="folder of the traces")
    asked = parser.parse_args()
    load_kernels()
    print("| job | requests | bound | blended | mode | of bound | mixed | overlap alone | over simple |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in asked.jobs or (TUNE if asked.tune else TEST):
        print(row(name, made(name, asked.workloads), asked.hardware), flush=True)


def made(name: str, workloads: Path) -> Prompts:
    kind, size, part = name.split(":")
    if kind in MIXES:
        rho, sharing = MIXES[kind]
        recipe = Recipe.of("burstgpt", "openvid", "mmlu", rho=rho, sharing=sharing, requests=int(size), seed=int(part))
        return synthesise(recipe, load_card(MODEL), machine(load_hardware("a100-80g"), 1, "peak")).prompts
    whole = trace(workloads / f"{kind}.jsonl.gz")
    middle = len(whole) // 2
    numbers = np.arange(middle) if part == "tune" else np.arange(middle, len(whole))
    return some(whole, numbers[: int(size) or None])


def some(prompts: Prompts, numbers: NDArray[np.int64]) -> Prompts:
    """Some of the prompts with their units. numbers: i64 (n,), ascending."""
    units = [np.asarray(prompts.units[prompts.offsets[each] : prompts.offsets[each + 1]]) for each in numbers]
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in units]))).astype(np.int64)
    taken = np.concatenate(units).astype(np.int32) if units else np.zeros(0, np.int32)
    return replace(prompts.take(numbers), units=taken, offsets=offsets)


def row(name: str, prompts: Prompts, hardware: str) -> str:
    card, on = load_card(MODEL), machine(load_hardware(hardware))
    pool = kv_pool(card, on)
    fitting = np.flatnonzero(pool.tokens - prompts.prompt_tokens > 1)
    prompts = some(prompts, fitting) if len(fitting) < len(prompts) else prompts
    tree, lengths, step = build_tree(prompts), known_lengths(prompts), step_time(card, on)
    asked = demand(tree, prompts, lengths, card, on)
    orders = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
    cut = Blender(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens).blend
    found = simulate_portfolio(
        *(tree, prompts, lengths, orders, [cut(), cut(scattered=True)], card, on),
        pool=pool,
        demand=asked,
        overlaps=tuple(Overlap),
    )
    least = practical_bound(tree, prompts, found.outputs, step, pool_tokens=pool.tokens)
    plain = bound_seconds(asked, on)
    alone = float(overlapped(plain.compute, plain.memory, SHARES, RATES))
    ours = best(found.candidates, (OrderName.BLENDED,), tuple(Overlap))
    mixed = best(found.candidates, (OrderName.BLENDED,), (Overlap.MIXED,))
    simple = best(found.candidates, SIMPLE, tuple(Overlap))
    bound = least.seconds()
    return (
        f"| {name} | {len(prompts):,} | {bound:,.1f} | {ours.seconds:,.1f} | {ours.overlap} | "
        f"{bound / ours.seconds:.1%} | {least.seconds([Overlap.MIXED]) / mixed.seconds:.1%} | "
        f"{alone / ours.seconds:.1%} | {simple.seconds / ours.seconds:.3f} |"
    )


def best(candidates: Sequence[Candidate], orders: Sequence[OrderName], overlaps: Sequence[Overlap]) -> Candidate:
    fitting = [each for each in candidates if each.order in orders and each.overlap in overlaps]
    return min(fitting, key=lambda each: each.seconds)


if __name__ == "__main__":
    main()
