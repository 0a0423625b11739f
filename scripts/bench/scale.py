"""How the planner grows with a job: processor seconds and memory of each stage, a request, and what blind cuts lose.

    python scripts/bench/scale.py
    python scripts/bench/scale.py --requests 250000,1000000,4000000 --tokens 100
    python scripts/bench/scale.py --few
    python scripts/bench/scale.py --cuts

Prompts are synthetic (`synthetic.py`), their ids memory-mapped from a file. Each size is a process of its own; seconds
are the processor's, of all threads; memory is the peak of anonymous pages up to that stage, over what was there before
but for the columns of the prompts. The last row is by the clock, cutting left out. --few: each order and mode in
one variant, at any size. --cuts: the workloads cut into 8 parts without a tree, beside `blend.partition`: consecutive
lines, and lines by a hash of their first tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

SIZES, TOKENS = "250000,1000000,4000000", 100
PARTS = 8
CUTTING = f"cutting in {PARTS}"
FIRST_TOKENS = (32, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", default=SIZES, help="sizes of the job, with commas between")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a prompt, in the mean")
    parser.add_argument("--folder", type=Path, help="where the ids lie while a size runs; default: the system's")
    parser.add_argument("--few", action="store_true", help="simulate one variant of each order and mode")
    parser.add_argument("--cuts", action="store_true", help="what cuts without a tree lose")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--tokenizer", type=Path, help="where the model's files are not here")
    parser.add_argument("--hardware", default="h100-sxm")
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.tokens, asked.folder, asked.few)))
    elif asked.cuts:
        show_cuts(asked)
    else:
        show_growth(asked)


def show_growth(asked: argparse.Namespace) -> None:
    found = {}
    for requests in map(int, asked.requests.split(",")):
        with tempfile.TemporaryDirectory(prefix="blendrun-bench-", dir=asked.folder) as folder:
            command = [sys.executable, __file__, "--measure", str(requests), "--tokens", str(asked.tokens)]
            command += ["--few"] if asked.few else []
            output = subprocess.run([*command, "--folder", folder], check=True, stdout=subprocess.PIPE).stdout
        found[requests] = json.loads(output)
    sizes = sorted(found)
    print("| stage |" + "".join(f" {size:,}: us, bytes a request |" for size in sizes) + " seconds grow as |")
    print("|---|" + "---|" * (len(sizes) + 1))
    stages = {size: found[size]["stages"] for size in sizes}
    for stage in stages[sizes[0]]:
        cells = "".join(
            f" {stages[size][stage][0] / size * 1e6:.2f}, {stages[size][stage][1] * 1024 / size:,.0f} |"
            for size in sizes
        )
        first, last = (stages[size][stage][0] for size in (sizes[0], sizes[-1]))
        power = math.log(max(last, 1e-9) / max(first, 1e-9)) / math.log(sizes[-1] / sizes[0]) if len(sizes) > 1 else 1
        print(f"| {stage} |{cells} n^{power:.2f} |")
    cells = "".join(f" {found[size]['clock']:.1f} s |" for size in sizes)
    print(f"| from ids to plan, by the clock |{cells} |")


def measure(requests: int, tokens: int, folder: Path, few: bool = False) -> dict[str, Any]:
    """stages: processor seconds and peak KiB of each; clock: seconds of all but cutting."""
    from dataclasses import fields

    import numpy as np
    from synthetic import synthetic_prompts
    from tree import OwnMemory

    from blendrun.blend.partition import partition
    from blendrun.cost.hardware import load_hardware, machine
    from blendrun.lengths.estimate import estimate
    from blendrun.models.cards import load_card
    from blendrun.names import OrderName, Overlap
    from blendrun.planner.plan import Choice, Structure, cost_structure, make_plan
    from blendrun.simulate import portfolio
    from blendrun.tree.build import build_tree
    from blendrun.tree.compiled import load_kernels

    if few:
        # No job is small, and no part is there to compare on.
        portfolio._LARGE, portfolio._PART = 0, 0
    prompts = synthetic_prompts(folder / "ids", requests, requests * tokens)
    card, on = load_card("llama-3-8b"), machine(load_hardware("h100-sxm"))
    load_kernels()
    orders = (OrderName.GIVEN, OrderName.SORTED, OrderName.LOF, OrderName.BLENDED)
    modes = (Overlap.EXCLUSIVE, Overlap.MIXED)
    # What Python, the kernels and the columns of the prompts take is not the stages'.
    held = (getattr(prompts, field.name) for field in fields(prompts) if field.name != "units")
    columns = sum(each.nbytes for each in held if isinstance(each, np.ndarray))
    stages: dict[str, tuple[float, float]] = {"columns of the prompts": (0.0, columns / 1024)}
    before = OwnMemory.now_kib()
    with OwnMemory() as memory:
        clock = {}

        def stage(name: str, work: Callable[[], Any]) -> Any:
            begun, clock[name] = time.process_time(), -time.perf_counter()
            result = work()
            stages[name] = (time.process_time() - begun, columns / 1024 + memory.peak_kib - before)
            clock[name] += time.perf_counter()
            return result

        tree = stage("tree", lambda: build_tree(prompts))
        lengths = stage("lengths", lambda: estimate(prompts, tree))
        costed = stage("cost and both blends", lambda: cost_structure(Structure(prompts, tree, lengths), card, on))
        stage(CUTTING, lambda: partition(tree, costed.demand, PARTS))
        stage("simulating, as run does", lambda: make_plan(costed, Choice(orders, modes)))
    return {"stages": stages, "clock": sum(seconds for name, seconds in clock.items() if name != CUTTING)}


def show_cuts(asked: argparse.Namespace) -> None:
    import numpy as np
    from cuts import WORKLOADS
    from partition import FILES, of_file

    from blendrun.blend.partition import measure as measured
    from blendrun.blend.partition import partition
    from blendrun.cost.hardware import load_hardware, machine
    from blendrun.models.cards import load_card
    from blendrun.planner.plan import cost_structure

    hashed = "".join(f" by {tokens} tokens: kept, off by |" for tokens in FIRST_TOKENS)
    print(f"| job | shared | by prefix tree: kept, off by | consecutive lines: kept, off by |{hashed}")
    print("|---|---|---|---|" + "---|" * len(FIRST_TOKENS))
    for name in FILES:
        structure = of_file(WORKLOADS / name, asked)
        prompts, tree = structure.prompts, structure.tree
        costed = cost_structure(structure, load_card(asked.model), machine(load_hardware(asked.hardware), 1))

        def cell(cut: Any) -> str:
            return f" {cut.kept_sharing:.1%}, {max(cut.imbalance()):.0%} |"

        lines = (np.arange(len(prompts)) * PARTS // len(prompts)).astype(np.int32)
        cells = cell(partition(tree, costed.demand, PARTS)) + cell(measured(tree, costed.demand, lines, PARTS))
        for tokens in FIRST_TOKENS:
            part = np.array([_bucket(prompts, row, tokens) for row in range(len(prompts))], dtype=np.int32)
            cells += cell(measured(tree, costed.demand, part, PARTS))
        shared = tree.shared_tokens / max(tree.prompt_tokens, 1)
        print(f"| {name.split('.')[0]} | {shared:.1%} |{cells}", flush=True)


def _bucket(prompts: Any, row: int, tokens: int) -> int:
    """Which part a line is put into by what it begins with."""
    begin, units = prompts.offsets[row], max(tokens // prompts.unit_tokens, 1)
    first = prompts.units[begin : min(begin + units, prompts.offsets[row + 1])]
    return int.from_bytes(blake2b(first.tobytes(), digest_size=4).digest(), "little") % PARTS


if __name__ == "__main__":
    main()
