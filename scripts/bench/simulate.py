"""What each order takes in the simulator: the paper's four mixes and three serving traces.

    python scripts/bench/simulate.py                        # mixes at 40 % of the paper's 400,000 requests, all traces
    python scripts/bench/simulate.py mix-1 azure-2023 --hardware h100-sxm --scale 1
    python scripts/bench/simulate.py --speed                # seconds to simulate 400,000 requests

mix-1 to mix-4 (docs/paper.md#workloads): BurstGPT, MMLU and OpenVid as `blendrun synth` makes them for an A100, of
density 1.4 / 0.9 / 1.4 / 0.9 and sharing 35 / 35 / 5 / 5 %.

Columns: stock: the order on SGLang as it comes (LRU cache with answers in it, no gate, reserve by ratio); ours: the
same order fed by blendrun; each with its best step budget. hits: of what an infinite cache saves. optimum: the
practical bound (docs/paper.md#the-practical-bound) over ours.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from blendrun.blend.base import Blend, Order
from blendrun.blend.blended import Blender
from blendrun.blend.budget import ConstantBudget
from blendrun.blend.orders import SIMPLEST_FIRST, simple_order
from blendrun.cost.balance import bound_seconds
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.reserve import engine_chunk
from blendrun.cost.step import RESIDENT_SHARE, step_budget
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.budgets import budgets_to_try
from blendrun.simulate.portfolio import STOCK, Portfolio, simulate_portfolio
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time
from blendrun.synth.recipe import Recipe
from blendrun.synth.workload import known_lengths, synthesise
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels

MIXES = {"mix-1": (1.4, 0.35), "mix-2": (0.9, 0.35), "mix-3": (1.4, 0.05), "mix-4": (0.9, 0.05)}
TRACES = ("azure-2023", "mooncake-conversation", "servegen-r1-a")
SIMPLE = tuple(name for name in SIMPLEST_FIRST if name is not OrderName.BLENDED)
# Requests and prompt tokens of each timing: four times the requests, then four times the tokens.
SPEEDS = ((100_000, 30_000_000), (400_000, 30_000_000), (400_000, 120_000_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join((*MIXES, *TRACES))}; default: all")
    parser.add_argument("--hardware", default="a100-80g")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--scale", type=float, default=0.4, help="of the paper's 400,000 requests")
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"), help="folder of the traces")
    parser.add_argument("--speed", action="store_true", help="only time the simulation of 400,000 requests")
    asked = parser.parse_args()
    load_kernels()
    if asked.speed:
        speed(asked.model, asked.hardware)
        return
    for name in asked.jobs or (*MIXES, *TRACES):
        prompts = mix(name, asked.scale, asked.model) if name in MIXES else trace(asked.workloads / f"{name}.jsonl.gz")
        table(name, prompts, asked.model, asked.hardware)


def table(name: str, prompts: Prompts, model: str, hardware: str) -> None:
    card, on = load_card(model), machine(load_hardware(hardware))
    pool = kv_pool(card, on)
    room = pool.tokens - prompts.prompt_tokens
    if (room <= 1).any():
        raise SystemExit(f"{name}: {int((room <= 1).sum())} prompts do not fit")
    tree, lengths = build_tree(prompts), known_lengths(prompts)
    asked = demand(tree, prompts, lengths, card, on)
    orders = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
    cut = Blender(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens).blend
    blends = [cut(), cut(scattered=True)]
    compute, reads = float(asked.compute_tokens.sum()), float(asked.kv_bytes.sum())
    usual = ConstantBudget(step_budget(compute, reads, pool.bytes, resident=RESIDENT_SHARE))
    bound, decoded = bound_seconds(asked, on), float(prompts.reference.sum())
    budgets = budgets_to_try(asked, pool, step_time(card, on), bound, decoded, engine_chunk(on.card), thorough=True)
    run = partial(simulate_portfolio, tree, prompts, lengths, pool=pool, demand=asked, model=card, machine=on)
    run = partial(run, thorough=True)
    begun = time.perf_counter()
    stock = run(orders=orders, blends=[], overlaps=tuple(Overlap), admissions=(STOCK,))
    ours = run(orders=orders, blends=blends, overlaps=tuple(Overlap))
    took = time.perf_counter() - begun
    report(name, hardware, pool.tokens, prompts, tree, stock, ours)
    print(f"{len(stock.candidates) + len(ours.candidates)} rows in {took:.0f} s; {ours.why}")
    # What adapts is last, hastier at the end.
    policies = {f"T* of {usual.tokens}": [usual], "adaptive": budgets[Overlap.PDMUX][-2:]}
    for overlap in (Overlap.MIXED, Overlap.PDMUX):
        alone = partial(run, orders=orders[:1], blends=blends, overlaps=[overlap])
        times = [f"{name} {alone(budgets=tried).candidates[-1].seconds:,.0f} s" for name, tried in policies.items()]
        print(f"{overlap:>10}: blended with {', '.join(times)}", flush=True)


def report(
    name: str, hardware: str, pool: int, prompts: Prompts, tree: PrefixTree, stock: Portfolio, ours: Portfolio
) -> None:
    bound, saved, best = ours.bound, max(tree.shared_tokens, 1), ours.practical_seconds
    print(f"\n{name} on {hardware}: {len(prompts):,} requests, {tree.prompt_tokens / 1e6:.1f} M prompt tokens", end="")
    print(f", {tree.shared_tokens / tree.prompt_tokens:.0%} shared, density {bound.compute / bound.memory:.2f}", end="")
    print(f", pool {pool:,}; bound {bound.overlapped:,.0f} s, optimum {best:,.0f} s")
    print(f"{'overlap':>10} {'order':>9} {'stock s':>9} {'hits':>6} {'ours s':>9} {'hits':>6} {'optimum':>8}  budget")
    twins = {(each.order, each.overlap): each for each in stock.candidates}
    for each in ours.candidates:
        twin = twins.get((each.order, each.overlap))
        left = f"{twin.seconds:9,.0f} {twin.outcome.hit_tokens / saved:6.1%}" if twin else " " * 16
        right = f"{each.seconds:9,.0f} {each.outcome.hit_tokens / saved:6.1%} {best / each.seconds:8.1%}"
        marks = f"{' paced' if each.paced else ''}{' <- chosen' if each is ours.chosen else ''}"
        print(f"{each.overlap:>10} {each.order:>9} {left} {right}  {getattr(each.budget, 'tokens', 'adaptive')}{marks}")
    for overlap in Overlap:
        times = {each.order: each.seconds for each in ours.candidates if each.overlap is overlap}
        plain = {each.order: each.seconds for each in stock.candidates if each.overlap is overlap}
        mine, deep = times[OrderName.BLENDED], plain[OrderName.SORTED]
        print(f"{overlap:>10}: blended over stock depth-first {deep / mine - 1:+.1%}", end="")
        print(f", over the best stock order {min(plain.values()) / mine - 1:+.1%}", end="")
        print(f", over the best simple order fed by us {min(times[one] for one in SIMPLE) / mine - 1:+.1%}", end="")
        print(f"; stock shuffle over stock depth-first {deep / plain[OrderName.SHUFFLED] - 1:+.1%}")


def speed(model: str, hardware: str) -> None:
    from synthetic import synthetic_prompts

    for requests, tokens in SPEEDS:
        with TemporaryDirectory() as folder:
            prompts = synthetic_prompts(Path(folder) / "ids", requests, tokens)
            took, steps = slowest(prompts, model, hardware)
        print(
            f"{requests:,} requests, {tokens / 1e6:.0f} M prompt tokens: {took:.1f} s at most, {steps:,} steps",
            flush=True,
        )


def slowest(prompts: Prompts, model: str, hardware: str) -> tuple[float, int]:
    """Seconds and steps of the order and mode that take longest to simulate, on one core."""
    card, on = load_card(model), machine(load_hardware(hardware))
    pool, tree, lengths = kv_pool(card, on), build_tree(prompts), known_lengths(prompts)
    asked = demand(tree, prompts, lengths, card, on)
    feeds: list[Order | Blend] = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
    feeds.append(Blender(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens).blend())
    outputs, step, found = prompts.reference.astype(np.int64), step_time(card, on), []
    for fed in feeds:
        for overlap in Overlap:
            begun = time.perf_counter()
            outcome = simulate(tree, prompts, fed, outputs, step, SimulatedEngine(pool.tokens, overlap))
            found.append((time.perf_counter() - begun, outcome.steps))
    return max(found)


def trace(path: Path) -> Prompts:
    from blendrun.jobs.source import open_sources
    from blendrun.jobs.trace import read_trace
    from blendrun.tokens.trace import trace_prompts

    with TemporaryDirectory() as spool:
        return trace_prompts(read_trace(open_sources([str(path)], Path(spool))))


def mix(name: str, scale: float, model: str) -> Prompts:
    """One of the paper's mixes, in random order."""
    rho, sharing = MIXES[name]
    recipe = Recipe.of("burstgpt", "openvid", "mmlu", rho=rho, sharing=sharing, requests=round(400_000 * scale))
    return synthesise(recipe, load_card(model), machine(load_hardware("a100-80g"), 1, "peak")).prompts


if __name__ == "__main__":
    main()
