"""What drafts and a cache in host memory would bring: simulated, by job and card. Nothing of it is turned on.

    python scripts/bench/extras.py
    python scripts/bench/extras.py squality-long mooncake-conversation --hardware h100-sxm --requests 500

Drafts: 4 a row and step at an acceptance of 30, 60 and 90 %, while few enough rows decode that they are free (with the
number of rows), and in every step of exclusive mode, as SGLang's n-gram drafts are. Host memory: 64 and 512 GB a
device. All by the order that the plan chooses (exclusive or mixed), over the plan without; beside it, the same for the
file's own order on the plan's engine, which uses prefixes far apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modes import first
from shared import load
from simulate import MIXES, TRACES, mix, trace

from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.names import OrderName
from blendrun.planner.plan import Choice, Plan, Structure, cost_structure, make_plan
from blendrun.planner.what_if import (
    cache_in_host_memory,
    drafts_at_the_tail,
    drafts_in_every_step,
    rows_with_free_drafts,
)
from blendrun.synth.workload import known_lengths
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree

JOBS = ("mix-2", "servegen-r1-a", "mooncake-conversation", "xquad-translate", "squality-long", "instruct-mix")
DRAFTS, ACCEPTANCE, MEMORY = 4, (0.3, 0.6, 0.9), (64.0, 512.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=JOBS)
    parser.add_argument("--hardware", default="a100-80g,h100-sxm", help="cards, with commas")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--requests", type=int, default=3000, help="the first so many of each job")
    parser.add_argument("--workloads", type=Path, default=Path("../shared/workloads"))
    asked = parser.parse_args()
    heads = [f"tail {each:.0%}" for each in ACCEPTANCE] + [f"always {each:.0%}" for each in ACCEPTANCE]
    heads += [f"host {each:g} GB" for each in MEMORY] + [f"given, {each:g} GB" for each in MEMORY]
    print(f"| job | card | plan, s | {' | '.join(heads)} |")
    for name in asked.jobs:
        prompts = first(prompts_of(name, asked.workloads, asked.model, asked.requests), asked.requests)
        structure = Structure(prompts, build_tree(prompts), known_lengths(prompts))
        for hardware in asked.hardware.split(","):
            costed = cost_structure(structure, load_card(asked.model), machine(load_hardware(hardware)))
            plan = make_plan(costed, Choice())
            cells = drafts(plan) + host(plan) + host(make_plan(costed, Choice(orders=(OrderName.GIVEN,))))
            chosen = plan.portfolio.chosen
            print(f"| {name} | {hardware} | {chosen.seconds:,.1f} ({chosen.order}) | {' | '.join(cells)} |", flush=True)


def prompts_of(name: str, folder: Path, model: str, requests: int) -> Prompts:
    if name in MIXES:
        return mix(name, requests / 400_000, model)
    return trace(folder / f"{name}.jsonl.gz") if name in TRACES else load(name, folder, "smollm2-135m")


def drafts(plan: Plan) -> list[str]:
    tail, always = [], []
    for acceptance in ACCEPTANCE:
        rows = rows_with_free_drafts(plan.portfolio.step, DRAFTS, acceptance)
        tail.append(f"{drafts_at_the_tail(plan, DRAFTS, acceptance).gain:+.1%} ({rows})")
        every = drafts_in_every_step(plan, DRAFTS, acceptance)
        always.append("-" if every is None else f"{every.gain:+.1%}")
    return tail + always


def host(plan: Plan) -> list[str]:
    return [f"{cache_in_host_memory(plan, memory).gain:+.1%}" for memory in MEMORY]


if __name__ == "__main__":
    main()
