"""Two batches over the same documents, the second a while after the first, on a card and in SGLang's own scheduler.

    python scripts/bench/joining.py OUT [--hardware a100-80g] [--stories 100] [--tokens 4000] [--wait 60]

Each asks questions of each story. What the first has not answered when the second comes is planned with it and without
it (`blendrun.planner.joining`). OUT/apart.jsonl has what is left in the order of one after the other, for `blendrun
bench tunnel --orders given`; OUT/together.jsonl the same lines, for `--orders sorted,blended`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from blendrun.backends.machines import machines_of
from blendrun.blend.base import Blend
from blendrun.jobs.source import open_sources
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.joining import joining
from blendrun.planner.plan import Choice, Costed, cost_structure, make_plan, make_structure
from blendrun.planner.run_plan import cost_again
from blendrun.planner.workload import Wanted, load_workload
from blendrun.simulate.draw import draw_outputs
from blendrun.simulate.simulator import simulate

_CHOICE = Choice((OrderName.GIVEN, OrderName.SORTED, OrderName.BLENDED), (Overlap.EXCLUSIVE,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--tokenizer", type=Path, help="of the words' tokens, if not the model's own")
    parser.add_argument("--hardware", default="a100-80g")
    parser.add_argument("--stories", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=4000, help="about so many of each story")
    parser.add_argument("--answer", type=int, default=200)
    parser.add_argument("--questions", type=int, default=2, help="of each batch")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    stories = [" ".join(map(str, rng.integers(0, 1000, asked.tokens // 4))) for _ in range(asked.stories)]
    lines = {
        f"{batch}:{number}-{question}": _line(f"{batch}:{number}-{question}", story, asked.answer)
        for batch in (0, 1)
        for question in range(asked.questions)
        for number, story in enumerate(stories)
    }
    job = _write(asked.out / "together.jsonl", lines.values())
    (on,) = machines_of(asked.hardware, "1")
    workload = load_workload(open_sources([str(job)], asked.out), Wanted(asked.model, asked.tokenizer))
    names = np.array([workload.name(number) for number in range(len(workload.prompts))])
    costed = cost_structure(make_structure(workload.prompts, workload.model, LengthMode.AUTO), workload.model.card, on)
    later = np.char.startswith(names, "1:")
    whole, ended = _ended(costed, np.flatnonzero(~later), asked.wait)
    print(f"the first alone {whole:.1f} s; {len(ended):,} of {int((~later).sum()):,} answered after {asked.wait:g} s")
    if len(ended) == int((~later).sum()):
        raise SystemExit("the first is done by then: give more stories")
    left = np.flatnonzero(~np.isin(np.arange(len(names)), ended))
    rest = cost_again(costed, costed.structure.take(left))
    found = joining(rest, later[left], _CHOICE)
    print(
        f"what is left and the second: {found.apart:.1f} s one after the other, {found.together:.1f} s together;"
        f" the longest answer in flight {found.longest:.1f} s"
    )
    names = names[left]
    order = np.concatenate([_order(rest, np.flatnonzero(~later[left])), _order(rest, np.flatnonzero(later[left]))])
    _write(asked.out / "together.jsonl", [lines[name] for name in names])
    _write(asked.out / "apart.jsonl", [lines[name] for name in names[order]])


def _line(name: str, story: str, answer: int) -> str:
    body = {"prompt": f"{story} {name}", "max_tokens": answer, "ignore_eos": True}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body})


def _write(path: Path, lines: object) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))  # type: ignore[attr-defined]
    return path


def _ended(costed: Costed, numbers: np.ndarray, wait: float) -> tuple[float, np.ndarray]:
    """Seconds of some prompts alone, and those of them that have ended after a while."""
    alone = cost_again(costed, costed.structure.take(numbers))
    plan = make_plan(alone, _CHOICE)
    chosen, structure = plan.portfolio.chosen, alone.structure
    outputs = draw_outputs(structure.lengths)
    fixed = structure.prompts.known
    outcome = simulate(
        structure.tree, structure.prompts, chosen.fed, outputs, plan.portfolio.step, chosen.engine, fixed=fixed
    )
    # A blend is simulated by its row, which is fed from both ends.
    prompts = chosen.fed.row_prompt if isinstance(chosen.fed, Blend) else chosen.fed.prompt
    return outcome.seconds, numbers[prompts[outcome.finished <= wait]]


def _order(costed: Costed, numbers: np.ndarray) -> np.ndarray:
    """Some prompts as their own plan has them."""
    return numbers[make_plan(cost_again(costed, costed.structure.take(numbers)), _CHOICE).order.prompt]


if __name__ == "__main__":
    main()
