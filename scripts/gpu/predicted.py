"""What the rounds should take by a hardware card: one JSON object. Needs no GPU.

    python scripts/gpu/predicted.py JOB --model FOLDER --hardware h200 --kv-tokens 100000 --max-running 320 \\
        --overlap exclusive,mixed

Seconds and cached tokens of each order on each mode with blendrun's hooks, and of the given order on SGLang as it
comes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blendrun.backends.machines import machines_of
from blendrun.cost.capacity import EngineLimits, kv_pool
from blendrun.events import ignore
from blendrun.jobs.source import open_sources
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.plan import Choice, cost_structure, make_plan, make_structure
from blendrun.planner.workload import Wanted, load_workload, planned_model
from blendrun.simulate.portfolio import Candidate

ORDERS = (OrderName.GIVEN, OrderName.SORTED, OrderName.BLENDED)


def predict(
    job: Path, model: str, hardware: str, kv_tokens: int | None, max_running: int | None, overlaps: tuple[Overlap, ...]
) -> dict[str, Any]:
    """Rows by order and mode. Raises UsageError, InputMissingError."""
    with TemporaryDirectory(prefix="blendrun-predict-") as scratch:
        sources = open_sources([str(job)], Path(scratch))
        workload = load_workload(sources, Wanted(model, None, None), ignore)
        structure = make_structure(workload.prompts, workload.model, LengthMode.AUTO, ignore)
        limits = EngineLimits(pool_tokens=kv_tokens, max_running=max_running)
        (on,) = machines_of(hardware, "1")
        costed = cost_structure(structure, workload.model.card, on, limits=limits)
        portfolio = make_plan(costed, Choice(ORDERS, overlaps), ignore).portfolio
    rows = [_row(portfolio.plain, "stock"), *(_row(each, "ours") for each in portfolio.candidates)]
    return {"hardware": on.card.name, "kv_tokens": costed.pool.tokens, "rows": rows}


def pool_of(model: str, hardware: str) -> int:
    """Tokens of KV that a card has room for beside the weights."""
    (on,) = machines_of(hardware, "1")
    return kv_pool(planned_model(Wanted(model), text=False).card, on).tokens


def _row(candidate: Candidate, engine: str) -> dict[str, Any]:
    outcome = candidate.outcome
    return {
        "order": str(candidate.order),
        "overlap": str(candidate.overlap),
        "engine": engine,
        "seconds": outcome.seconds,
        "cached": outcome.hit_tokens,
        "steps": outcome.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--kv-tokens", type=int)
    parser.add_argument("--max-running", type=int)
    parser.add_argument("--overlap", default="exclusive,mixed")
    asked = parser.parse_args()
    overlaps = tuple(Overlap(name) for name in asked.overlap.split(","))
    print(json.dumps(predict(asked.job, asked.model, asked.hardware, asked.kv_tokens, asked.max_running, overlaps)))


if __name__ == "__main__":
    main()
