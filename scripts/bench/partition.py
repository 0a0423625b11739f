"""Jobs cut into 2, 4, 8 and 64 parts: sharing kept, balance of both kinds of work, seconds that cutting takes.

    python scripts/bench/partition.py [FILE ...] [--model llama-3-8b] [--hardware h100-sxm] [--made 1000000]

FILE: requests or traces; default: those of ../shared/workloads, lengths from the lines where they are known. --made: a
workload of so many requests by the paper's recipe beside them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cuts import WORKLOADS

from blendrun.blend.partition import partition
from blendrun.cost.hardware import load_hardware, machine
from blendrun.events import Event, Note
from blendrun.jobs.source import open_sources
from blendrun.models.cards import load_card
from blendrun.names import LengthMode
from blendrun.planner.plan import Structure, cost_structure, make_structure
from blendrun.planner.workload import Wanted, load_workload
from blendrun.synth.recipe import Recipe
from blendrun.synth.workload import known_lengths, synthesise

PARTS = (2, 4, 8, 64)
FILES = (
    "xquad-qa-5lang.jsonl.gz",
    "squality-long.jsonl.zst",
    "smoke-mix.jsonl",
    "instruct-mix.jsonl.gz",
    "mmlu-5shot.jsonl.zst",
    "xquad-translate.jsonl.gz",
    "mooncake-conversation.jsonl.gz",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="default: the workloads")
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--tokenizer", type=Path, help="where the model's files are not here")
    parser.add_argument("--hardware", default="h100-sxm")
    parser.add_argument("--made", type=int, help="requests of a workload by the recipe (rho 1.1, sharing 0.35)")
    asked = parser.parse_args()
    print("| job | requests | shared | parts | sharing kept | compute off by | memory off by | largest request | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in asked.files or [WORKLOADS / name for name in FILES]:
        show(path.name.split(".")[0], of_file(path, asked), asked)
    if asked.made:
        on = machine(load_hardware(asked.hardware), 1, "peak")
        made = synthesise(
            Recipe.of("burstgpt", "openvid", "mmlu", rho=1.1, sharing=0.35, requests=asked.made),
            load_card(asked.model),
            on,
        )
        show(f"made, {asked.made:,}", Structure(made.prompts, made.tree, known_lengths(made.prompts)), asked)


def of_file(path: Path, asked: argparse.Namespace) -> Structure:
    with TemporaryDirectory() as spool:
        wanted = Wanted(asked.model, asked.tokenizer, None, None)
        workload = load_workload(open_sources([str(path)], Path(spool)), wanted)
        return make_structure(workload.prompts, workload.model, LengthMode.REFERENCE, _print_notes)


def show(name: str, structure: Structure, asked: argparse.Namespace) -> None:
    costed = cost_structure(structure, load_card(asked.model), machine(load_hardware(asked.hardware), 1))
    tree, demand = structure.tree, costed.demand
    shared = tree.shared_tokens / max(tree.prompt_tokens, 1)
    largest = max(float(each[tree.leaf].max() / max(each.sum(), 1e-30)) for each in (demand.flops, demand.kv_bytes))
    for parts in PARTS:
        begun = time.perf_counter()
        cut = partition(tree, demand, parts)
        seconds = time.perf_counter() - begun
        assert np.bincount(cut.part, minlength=parts).sum() == tree.prompts
        compute, memory = cut.imbalance()
        print(
            f"| {name} | {tree.prompts:,} | {shared:.1%} | {parts} | {cut.kept_sharing:.2%} | {compute:.2%} | "
            f"{memory:.2%} | {largest * parts:.1%} | {seconds:.3f} |",
            flush=True,
        )


def _print_notes(event: Event) -> None:
    """Of all that is told, what could not be used."""
    if isinstance(event, Note):
        print(event.text)


if __name__ == "__main__":
    main()
