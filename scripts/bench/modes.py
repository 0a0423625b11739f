"""What the mode of each step is worth: prefill by turns, and mixing only where it wins. Simulated.

    python scripts/bench/modes.py                                    # four mixes of 10,000 requests, three traces
    python scripts/bench/modes.py mix-2 servegen-r1-a --hardware h100-sxm,l40s --requests 5000

Two tables a card. Turns: exclusive mode, SGLang's prefill whenever anything fits against turns of prefill that begin
when so many of the rows are left; per order. Crossover: mixed steps of T* where mixing costs decode attention a share
of itself (`StepTime.mixed`), which nobody has measured: seconds of exclusive mode, mixed, and mixed with a crossover.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from simulate import MIXES, TRACES, mix, trace

from blendrun.blend.base import Blend, Order
from blendrun.blend.blended import Blender
from blendrun.blend.budget import Budget, ConstantBudget, TurnsBudget
from blendrun.blend.orders import simple_order
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.reserve import engine_chunk
from blendrun.cost.step import RESIDENT_SHARE, step_budget
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.budgets import crossover_budget
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time
from blendrun.synth.workload import known_lengths
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree

DRAINED = (0.98, 0.95, 0.9, 0.75, 0.5)
MIXED = (0.0, 0.1, 0.25, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=(*MIXES, *TRACES))
    parser.add_argument("--hardware", default="a100-80g,h100-sxm", help="cards, with commas")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--requests", type=int, default=10_000, help="of a mix; of a trace the first so many")
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"), help="folder of the traces")
    asked = parser.parse_args()
    for hardware in asked.hardware.split(","):
        print(f"\n{hardware}; exclusive, seconds by the share of rows with which prefill begins")
        print(f"| job | order | at once | {' | '.join(f'{share:.0%}' for share in DRAINED)} |")
        jobs = {}
        for name in asked.jobs:
            found = trace(asked.workloads / f"{name}.jsonl.gz") if name not in MIXES else None
            prompts = mix(name, asked.requests / 400_000, asked.model) if found is None else found
            jobs[name] = Bench(first(prompts, asked.requests), asked.model, hardware)
            turns(name, jobs[name])
        print(f"\n{hardware}; seconds where mixing costs decode attention a share of itself: mixed / crossover")
        print(f"| job | order | exclusive | {' | '.join(f'{share:.0%}' for share in MIXED)} |")
        for name, bench in jobs.items():
            crossover(name, bench)


def first(prompts: Prompts, count: int) -> Prompts:
    """The first so many of a job, with what they say."""
    count = min(count, len(prompts))
    offsets = prompts.offsets[: count + 1]
    return replace(prompts.take(np.arange(count)), units=prompts.units[: offsets[-1]], offsets=offsets)


class Bench:
    def __init__(self, prompts: Prompts, model: str, hardware: str) -> None:
        card, on = load_card(model), machine(load_hardware(hardware))
        self.pool, self.step, self.chunk = kv_pool(card, on), step_time(card, on), engine_chunk(on.card)
        self.prompts, self.tree, lengths = prompts, build_tree(prompts), known_lengths(prompts)
        asked = demand(self.tree, prompts, lengths, card, on)
        compute, reads = float(asked.compute_tokens.sum()), float(asked.kv_bytes.sum())
        self.tokens = step_budget(compute, reads, self.pool.bytes, resident=RESIDENT_SHARE)
        cut = Blender(self.tree, prompts, lengths, asked, on, pool_tokens=self.pool.tokens).blend
        self.fed: dict[str, list[Order | Blend]] = {
            "depth first": [simple_order(OrderName.SORTED, prompts, self.tree, lengths)],
            "blended": [cut(), cut(scattered=True)],
        }

    def seconds(self, fed: str, overlap: Overlap, budget: Budget, mixed: float = 0.0) -> float:
        """Of the better blend."""
        engine = SimulatedEngine(self.pool.tokens, overlap, budget, gate_tokens=32)
        step, outputs = replace(self.step, mixed=mixed), self.prompts.reference.astype("int64")
        return min(simulate(self.tree, self.prompts, each, outputs, step, engine).seconds for each in self.fed[fed])


def turns(name: str, bench: Bench) -> None:
    for fed in bench.fed:
        at_once = bench.seconds(fed, Overlap.EXCLUSIVE, ConstantBudget(bench.chunk))
        times = [bench.seconds(fed, Overlap.EXCLUSIVE, TurnsBudget(bench.chunk, share)) for share in DRAINED]
        print(
            f"| {name} | {fed} | {at_once:,.1f} | {' | '.join(f'{each / at_once - 1:+.1%}' for each in times)} |",
            flush=True,
        )


def crossover(name: str, bench: Bench) -> None:
    for fed in bench.fed:
        apart = bench.seconds(fed, Overlap.EXCLUSIVE, ConstantBudget(bench.chunk))
        cells = []
        for mixed in MIXED:
            crossing = crossover_budget(bench.tokens, bench.chunk, replace(bench.step, mixed=mixed))
            both = bench.seconds(fed, Overlap.MIXED, ConstantBudget(bench.tokens), mixed)
            cells.append(f"{both:,.1f} / {bench.seconds(fed, Overlap.MIXED, crossing, mixed):,.1f}")
        print(f"| {name} | {fed} | {apart:,.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
