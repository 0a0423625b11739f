"""What decode attention would gain that reads a shared prefix once for all rows: simulated, by job and order.

    python scripts/bench/shared.py
    python scripts/bench/shared.py squality-long --hardware h100-sxm --least 512

Jobs with text are tokenised with --tokenizer; their answers are as long as the published ones. `few-shot` is mmlu-5shot
with answers of 128 tokens (its own are one token, and decode nothing). A name with `*8` asks for eight answers a
request. Columns: seconds of the better of exclusive and mixed steps (T* of the usual filling), fed by blendrun, with
attention that reads for each row and with one that reads segments of --least tokens or more once; the demand that the
blend goes by counts likewise.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from simulate import SIMPLE

from blendrun.blend.blended import Blender
from blendrun.blend.orders import simple_order
from blendrun.cost.capacity import kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.jobs.source import open_sources
from blendrun.models.cards import load_card
from blendrun.names import OrderName
from blendrun.planner.workload import Wanted, load_workload
from blendrun.simulate.portfolio import BLENDRUN, Candidate, simulate_portfolio
from blendrun.synth.workload import known_lengths
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree

FILES = {
    "few-shot": "mmlu-5shot.jsonl.zst",
    "xquad-qa-5lang": "xquad-qa-5lang.jsonl.gz",
    "xquad-translate": "xquad-translate.jsonl.gz",
    "squality-long": "squality-long.jsonl.zst",
    "instruct-mix": "instruct-mix.jsonl.gz",
    "mooncake-conversation": "mooncake-conversation.jsonl.gz",
}
JOBS = ("few-shot", "xquad-qa-5lang", "xquad-translate", "squality-long", "instruct-mix*8", "squality-long*8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=JOBS, help=f"of {', '.join(FILES)}, with or without *N")
    parser.add_argument("--hardware", default="a100-80g,h100-sxm", help="cards, with commas")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--tokenizer", default="smollm2-135m", help="a model whose tokenizer counts the text")
    parser.add_argument("--least", type=int, default=256)
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"))
    asked = parser.parse_args()
    orders = (*SIMPLE, OrderName.BLENDED)
    print(f"| job | card | {' | '.join(orders)} | best of each way |")
    for name in asked.jobs:
        prompts = load(name, asked.workloads, asked.tokenizer)
        tree = build_tree(prompts)
        for hardware in asked.hardware.split(","):
            each = best(tree, prompts, asked.model, hardware, None)
            once = best(tree, prompts, asked.model, hardware, asked.least)
            cells = [f"{each[order].seconds:,.1f} / {once[order].seconds:,.1f}" for order in orders]
            first, second = (min(found.values(), key=lambda one: one.seconds) for found in (each, once))
            gain = f"{first.seconds / second.seconds:.2f}x"
            ways = f"{first.order} {first.overlap} / {second.order} {second.overlap}: {gain}"
            print(f"| {name} | {hardware} | {' | '.join(cells)} | {ways} |", flush=True)


def load(name: str, folder: Path, tokenizer: str) -> Prompts:
    job, _, choices = name.partition("*")
    with TemporaryDirectory() as spool:
        prompts = load_workload(open_sources([str(folder / FILES[job])], Path(spool)), Wanted(tokenizer)).prompts
    if job == "few-shot":
        answers = np.full_like(prompts.reference, 128)
        prompts = replace(prompts, reference=answers, bound=answers)
    return replace(prompts, choices=np.full_like(prompts.choices, int(choices or 1)))


def best(
    tree: PrefixTree, prompts: Prompts, model: str, hardware: str, least: int | None
) -> dict[OrderName, Candidate]:
    """The better mode of each order."""
    card, on = load_card(model), machine(load_hardware(hardware))
    pool, lengths = kv_pool(card, on), known_lengths(prompts)
    asked = demand(tree, prompts, lengths, card, on, shared_reads=least)
    blender = Blender(tree, prompts, lengths, asked, on, pool_tokens=pool.tokens)
    blends = [blender.blend(), blender.blend(scattered=True)]
    orders = [simple_order(each, prompts, tree, lengths) for each in SIMPLE]
    found = simulate_portfolio(
        *(tree, prompts, lengths, orders, blends, card, on),
        pool=pool,
        demand=asked,
        thorough=False,
        admissions=(BLENDRUN,),
        outputs=prompts.reference.astype(np.int64),
        shared_reads=least,
    ).candidates
    return {
        name: min((each for each in found if each.order is name), key=lambda one: one.seconds)
        for name in (*SIMPLE, OrderName.BLENDED)
    }


if __name__ == "__main__":
    main()
