"""What each order takes in the simulator: the paper's four mixes and three serving traces.

    python scripts/bench/simulate.py                        # mixes at 40 % of the paper's 400,000 requests, all traces
    python scripts/bench/simulate.py mix-1 azure-2023 --hardware h100-sxm --scale 1
    python scripts/bench/simulate.py --speed                # seconds to simulate 400,000 requests

mix-1 to mix-4 (paper.md 2.1): BurstGPT, MMLU and OpenVid by their published mean lengths, each with a system prompt of
its own, mixed to density 1.4 / 0.9 / 1.4 / 0.9 (peak rates of an A100) and sharing 35 / 35 / 5 / 5 %. Lengths are
log-normal; their spread is chosen so that each trace has its published density.

Columns: stock: the order on SGLang as it comes (LRU cache with answers in it, no gate, reserve by ratio); ours: the
same order fed by blendrun; each with its best step budget. hits: of what an infinite cache saves. optimum: the job's
compute and memory overlapped as well as one device can, over ours.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order, OrderName
from blendrun.blend.blended import blend
from blendrun.blend.simple import simple_order
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.mix import TraceCost, solve_mix
from blendrun.cost.paper import paper_compute_seconds, paper_memory_seconds
from blendrun.lengths.base import Lengths
from blendrun.models.cards import load_card
from blendrun.simulate import STOCK, Overlap, Portfolio, simulate_portfolio
from blendrun.tokens.base import Prompts
from blendrun.tree import PrefixTree, build_tree, load_kernels

MIXES = {"mix-1": (1.4, 0.35), "mix-2": (0.9, 0.35), "mix-3": (1.4, 0.05), "mix-4": (0.9, 0.05)}
TRACES = ("azure-2023", "mooncake-conversation", "servegen-r1-a")
SIMPLE = (OrderName.GIVEN, OrderName.SORTED, OrderName.SHUFFLED, OrderName.LOF)
_SYSTEM = 5
_SUBJECTS = 57
_SUBJECT_TOKENS = 695


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
        prompts = mix(name, asked.scale) if name in MIXES else trace(asked.workloads / f"{name}.jsonl.gz")
        table(name, prompts, asked.model, asked.hardware)


def table(name: str, prompts: Prompts, model: str, hardware: str) -> None:
    card, on = load_card(model), machine(load_hardware(hardware))
    pool = kv_pool(card, on)
    room = pool.tokens - prompts.prompt_tokens
    if (room <= 1).any():
        raise SystemExit(f"{name}: {int((room <= 1).sum())} prompts do not fit")
    tree, lengths = build_tree(prompts), known(prompts)
    asked = demand(tree, prompts, lengths, card, on)
    orders = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
    cut = partial(blend, tree, prompts, lengths, asked, on, pool_tokens=pool.tokens)
    blends = [cut(), cut(scattered=True)]
    begun = time.perf_counter()
    run = partial(simulate_portfolio, tree, prompts, lengths, orders, pool=pool, demand=asked, overlaps=tuple(Overlap))
    stock = run(blends=[], model=card, machine=on, feeding=STOCK)
    ours = run(blends=blends, model=card, machine=on)
    took = time.perf_counter() - begun
    report(name, hardware, pool.tokens, prompts, tree, stock, ours)
    print(f"{len(stock.candidates) + len(ours.candidates)} rows in {took:.0f} s; {ours.why}", flush=True)


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

    from blendrun.simulate import Engine, simulate, step_time

    card, on = load_card(model), machine(load_hardware(hardware))
    pool = kv_pool(card, on)
    with TemporaryDirectory() as folder:
        prompts = synthetic_prompts(Path(folder) / "ids", 400_000, 120_000_000)
        tree, lengths = build_tree(prompts), known(prompts)
        asked = demand(tree, prompts, lengths, card, on)
        feeds: list[Order | Blend] = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
        feeds.append(blend(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens))
        for feed in feeds:
            for overlap in Overlap:
                begun = time.perf_counter()
                engine = Engine(pool.tokens, overlap)
                outputs = prompts.reference.astype(np.int64)
                outcome = simulate(tree, prompts, feed, outputs, step_time(card, on), engine)
                took = time.perf_counter() - begun
                name = OrderName.BLENDED if isinstance(feed, Blend) else feed.name
                print(f"400,000 requests, {name} on {overlap}: {outcome.steps:,} steps in {took:.1f} s", flush=True)


def known(prompts: Prompts) -> Lengths:
    mean = prompts.reference.astype(np.float64)
    return Lengths(mean, mean**2, prompts.bound, np.zeros(len(prompts), dtype=np.uint8))


def trace(path: Path) -> Prompts:
    from blendrun.jobs import open_sources
    from blendrun.jobs.trace import read_trace
    from blendrun.tokens.trace import trace_prompts

    with TemporaryDirectory() as spool:
        return trace_prompts(read_trace(open_sources([str(path)], Path(spool))))


def mix(name: str, scale: float) -> Prompts:
    """One of the paper's mixes, in random order."""
    density, shared = MIXES[name]
    rng = np.random.default_rng(0)
    kinds = ((0, _SYSTEM), (1, _SUBJECT_TOKENS), (2, _SYSTEM))
    costs = [_cost(*_lengths(rng, kind, 100_000), shared=saved) for kind, saved in kinds]
    counts = solve_mix(*costs, requests=400_000 * scale, density=density, shared=shared)
    wanted = (counts.compute, counts.sharing, counts.memory)
    drawn = [_lengths(rng, kind, max(round(count), 1)) for kind, count in enumerate(wanted)]
    prompt = np.concatenate([each[0] for each in drawn])
    output = np.concatenate([each[1] for each in drawn])
    kind = np.repeat(np.arange(3), [len(each[0]) for each in drawn])
    place = rng.permutation(len(prompt))
    return _prompts(rng, prompt[place], output[place], kind[place])


def _lengths(rng: np.random.Generator, kind: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and output tokens of BurstGPT, MMLU and OpenVid, by number."""
    if kind == 0:
        return _SYSTEM + _spread(rng, 239, 1.0, count), _spread(rng, 27, 2.0, count)
    if kind == 1:
        return _SUBJECT_TOKENS + _spread(rng, 109, 0.5, count), np.full(count, 2)
    return _SYSTEM + _spread(rng, 116, 0.3, count), _spread(rng, 16_000, 0.18, count)


def _spread(rng: np.random.Generator, mean: float, deviation: float, count: int) -> NDArray[np.int64]:
    """Log-normal; deviation: standard deviation over the mean."""
    square = np.log1p(deviation**2)
    return np.maximum(rng.lognormal(np.log(mean) - square / 2, np.sqrt(square), count), 1).astype(np.int64)


def _cost(prompt: NDArray[np.int64], output: NDArray[np.int64], shared: int) -> TraceCost:
    card, peak = load_card("llama-3-8b"), machine(load_hardware("a100-80g"), 1, "peak")
    p, d = prompt.astype(np.float64), output.astype(np.float64)
    compute = paper_compute_seconds(
        p - shared, d, card.parameters_total, card.hidden_size, card.layers, peak.flops, attention=False
    )
    memory = paper_memory_seconds(p, d, card.kv_heads * card.head_dim, card.layers, peak.bandwidth)
    return TraceCost(float(p.mean()), float(shared), float(compute.mean()), float(memory.mean()))


def _prompts(
    rng: np.random.Generator, prompt: NDArray[np.int64], output: NDArray[np.int64], kind: NDArray[np.int64]
) -> Prompts:
    """Random token ids behind the system prompt of each trace and the five shots of each subject."""
    count = len(prompt)
    offsets = np.concatenate(([0], np.cumsum(prompt)))
    units = rng.integers(1000, 120_000, int(offsets[-1]), dtype=np.int32)
    heads = [rng.integers(1000, 120_000, _SUBJECT_TOKENS, dtype=np.int32) for _ in range(_SUBJECTS + 2)]
    for head in heads[:_SUBJECTS]:
        head[:_SYSTEM] = heads[0][:_SYSTEM]
    subject = rng.integers(0, _SUBJECTS, count)
    for place in range(count):
        begin = offsets[place]
        if kind[place] == 1:
            units[begin : begin + _SUBJECT_TOKENS] = heads[subject[place]]
        else:
            units[begin : begin + _SYSTEM] = heads[_SUBJECTS + (kind[place] > 0)][:_SYSTEM]
    answer = output.astype(np.int32)
    return Prompts(
        row=np.arange(count, dtype=np.int64),
        units=units,
        offsets=offsets,
        unit_tokens=1,
        prompt_tokens=prompt.astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=kind.astype(np.uint64),
        bound=answer,
        choices=np.ones(count, dtype=np.int32),
        reference=answer,
        known=np.ones(count, dtype=np.bool_),
    )


if __name__ == "__main__":
    main()
