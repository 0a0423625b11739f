"""What a long quantile is worth in the order, and in admission, where lengths are known only as distributions.

    python scripts/bench/tails.py [--hardware a100-80g] [--seeds 6]

Eight kinds of request, prompts of 100 to 1,500 tokens, mean answers of 60 to 1,200; log-normal, half of the kinds with
a light tail (sigma 0.3), half with a heavy one (1.4), dealt by the seed. The plan knows each kind's distribution, the
answers are drawn from it. Mixed steps, best budget of those tried. Numbers: the practical bound over the time, mean of
the seeds; in brackets, requests sent back.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Blend, Order
from blendrun.blend.blended import Blender
from blendrun.cost.balance import bound_seconds
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.reserve import engine_chunk
from blendrun.lengths.base import Lengths, LengthSource
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.budgets import budgets_to_try
from blendrun.simulate.practical import practical_bound
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels

MEANS = np.array([60.0, 120.0, 250.0, 400.0, 500.0, 700.0, 900.0, 1200.0])
LIGHT, HEAVY, LONGEST = 0.3, 1.4, 16_000
# A block so large that no prompt has two: prompts share nothing.
BLOCK = 1 << 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", default="a100-80g")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--requests", type=int, nargs="+", default=[1_000, 3_000, 6_000])
    asked = parser.parse_args()
    load_kernels()
    for count in asked.requests:
        found: dict[str, list[tuple[float, int]]] = {}
        for seed in range(asked.seeds):
            for name, result in runs(count, seed, asked.hardware).items():
                found.setdefault(name, []).append(result)
        print(f"\n{count:,} requests on {asked.hardware}\n\n| fed | of bound | sent back |\n|---|---|---|")
        for name, each in found.items():
            share, back = (float(np.mean(column)) for column in zip(*each, strict=True))
            print(f"| {name} | {share:.1%} | {back:.0f} |", flush=True)


def runs(count: int, seed: int, hardware: str) -> dict[str, tuple[float, int]]:
    """By what was fed and believed: share of the bound, and requests sent back."""
    card, on = load_card("llama-3-8b"), machine(load_hardware(hardware))
    pool, step = kv_pool(card, on), step_time(card, on)
    prompts, lengths, outputs = job(count, seed)
    tree = build_tree(prompts)
    asked = demand(tree, prompts, lengths, card, on)
    bound, decoded = bound_seconds(asked, on), float(lengths.mean.sum())
    budgets = budgets_to_try(asked, pool, step, bound, decoded, engine_chunk(on.card), thorough=True)[Overlap.MIXED]
    least = practical_bound(tree, prompts, outputs, step, pool_tokens=pool.tokens).seconds([Overlap.MIXED])

    def run(fed: Order | Blend, expected: NDArray[np.float64]) -> tuple[float, int]:
        believed = np.maximum(np.rint(expected), 1).astype(np.int64)
        engines = (SimulatedEngine(pool.tokens, Overlap.MIXED, budget, gate_tokens=32) for budget in budgets)
        outcomes = [simulate(tree, prompts, fed, outputs, step, each, expected=believed) for each in engines]
        soonest = min(outcomes, key=lambda outcome: outcome.seconds)
        return least / soonest.seconds, soonest.retractions

    def level(of: float) -> NDArray[np.float64]:
        return lengths.quantile(np.full(count, of))

    keys = {"mean": lengths.mean, "root mean square": np.sqrt(lengths.square)}
    keys |= {f"{of:.0%} quantile": level(of) for of in (0.5, 0.75, 0.9, 0.97, 0.99)}
    keys["the answers themselves"] = outputs.astype(np.float64)
    found = {f"longest first by {name}": run(longest_first(key), lengths.mean) for name, key in keys.items()}
    cut = Blender(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens).blend()
    found["blended"] = run(cut, lengths.mean)
    for of in (0.5, 0.75, 0.9):
        found[f"blended, admission believes the {of:.0%} quantile"] = run(cut, level(of))
    return found


def job(count: int, seed: int) -> tuple[Prompts, Lengths, NDArray[np.int64]]:
    """Prompts of eight kinds, what is known of their answers, and how long these are."""
    rng = np.random.default_rng(seed)
    sigmas = np.array([LIGHT, HEAVY] * 4)[rng.permutation(8)]
    sizes = rng.integers(100, 1_500, 8)
    kind = rng.integers(0, 8, count)
    mean, sigma = MEANS[kind], sigmas[kind]
    tokens = np.maximum(sizes[kind] * rng.uniform(0.7, 1.3, count), 10).astype(np.int32)
    drawn = np.exp(np.log(mean) - sigma**2 / 2 + sigma * rng.standard_normal(count))
    bound = np.full(count, LONGEST, dtype=np.int32)
    prompts = Prompts(
        row=np.arange(count, dtype=np.int64),
        units=np.arange(count, dtype=np.int32),
        offsets=np.arange(count + 1, dtype=np.int64),
        unit_tokens=BLOCK,
        prompt_tokens=tokens,
        root=np.zeros(count, dtype=np.uint64),
        cluster=kind.astype(np.uint64),
        bound=bound,
        choices=np.ones(count, dtype=np.int32),
        reference=np.full(count, -1, dtype=np.int32),
        known=np.zeros(count, dtype=np.bool_),
    )
    source = np.full(count, LengthSource.HISTORY, dtype=np.uint8)
    lengths = Lengths(mean, mean**2 * np.exp(sigma**2), bound, source)
    return prompts, lengths, np.clip(np.rint(drawn), 1, LONGEST).astype(np.int64)


def longest_first(key: NDArray[np.float64]) -> Order:
    return Order(OrderName.LOF, np.argsort(-key, kind="stable"), np.full(len(key), LEFT, dtype=np.uint8))


if __name__ == "__main__":
    main()
