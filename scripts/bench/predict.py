"""Predicted against measured: cuts of real jobs on this machine's CPU runtime, and simulated with its calibrated card.

    blendrun calibrate --model smollm2-135m
    python scripts/bench/predict.py [JOB ...] [--orders given,sorted]

Each job runs once an order, by the real command, on a KV pool that cannot hold it; answers have known lengths
(`cuts.py`), so that what is judged is the model of time and of the cache. Measured: the phase `run` of the summary,
from the first request handed over to the last answer, and the cached tokens that the runtime reports. Nothing else may
run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cuts import CUTS, pool_of, write_cut

from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import ConstantBudget
from blendrun.cost.detect import own_hardware
from blendrun.cost.hardware import load_hardware, machine
from blendrun.engine.sizes import engine_limits
from blendrun.jobs.source import open_sources
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.plan import cost_structure, make_structure
from blendrun.planner.workload import Wanted, load_workload
from blendrun.simulate.base import Eviction, SimulatedEngine
from blendrun.simulate.simulator import simulate
from blendrun.simulate.steptime import step_time
from blendrun.simulate.worth import WORTH_TOKENS

MODEL = "smollm2-135m"
BLENDRUN = str(Path(sys.executable).with_name("blendrun"))
# Of a running request's bound, what SGLang's own admission keeps free where the end token is ignored.
_RESERVE = 1.0


@dataclass(frozen=True)
class Found:
    """Seconds and cached tokens of one run, and what was predicted of it."""

    job: str
    order: str
    requests: int
    prompt_tokens: int
    seconds: float
    predicted: float
    cached: int
    predicted_cached: int

    @property
    def error(self) -> float:
        return self.predicted / self.seconds - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join((*CUTS, 'mix'))}; default: all but mix")
    parser.add_argument("--orders", default="given,sorted")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    asked = parser.parse_args()
    print("| job | requests | order | measured s | predicted s | error | cached | predicted |")
    print("|---|---|---|---|---|---|---|---|")
    found = []
    with TemporaryDirectory(prefix="blendrun-predict-") as folder:
        for job in asked.jobs or CUTS:
            path = write_cut(job, Path(folder))
            for order in asked.orders.split(","):
                found.append(compare(job, path, OrderName(order)))
                show(found[-1])
    errors = [abs(each.error) for each in found]
    print(f"\nmedian error {statistics.median(errors):.1%}, worst {max(errors):.1%}")
    if asked.json:
        asked.json.write_text(json.dumps([vars(each) for each in found], indent=1))


def show(found: Found) -> None:
    cached, expected = found.cached / found.prompt_tokens, found.predicted_cached / found.prompt_tokens
    print(
        f"| {found.job} | {found.requests} | {found.order} | {found.seconds:.1f} | {found.predicted:.1f} "
        f"| {found.error:+.1%} | {cached:.1%} | {expected:.1%} |",
        flush=True,
    )


def compare(job: str, path: Path, order: OrderName) -> Found:
    seconds, tokens = measure(path, order, pool_of(job))
    predicted, hits, requests = predict(path, order, pool_of(job))
    return Found(job, str(order), requests, tokens["prompt"], seconds, predicted, tokens["cached"], hits)


def measure(path: Path, order: OrderName, pool: int) -> tuple[float, dict[str, int]]:
    output = path.with_name(f"{path.stem}-{order}.out.jsonl")
    command = [BLENDRUN, "run", path, "--model", MODEL, "--device", "cpu", "--order", order, "-o", output, "--quiet"]
    command += ["--engine-arg", f"max_total_tokens={pool}"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job_of(path)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    summary = json.loads(Path(f"{output}.blendrun/summary.json").read_text())
    return summary["seconds"]["run"], summary["tokens"]


def job_of(path: Path) -> str:
    return path.stem


def predict(path: Path, order: OrderName, pool: int) -> tuple[float, int, int]:
    """Seconds, cached tokens and requests of the same run in the simulator."""
    on, limits = machine(load_hardware(own_hardware())), engine_limits("cpu", {"max_total_tokens": pool})
    with TemporaryDirectory() as spool:
        workload = load_workload(open_sources([str(path)], Path(spool)), Wanted(MODEL))
        structure = make_structure(workload.prompts, workload.model, LengthMode.AUTO)
    prompts = structure.prompts
    assert prompts.known.all()
    costed = cost_structure(structure, workload.model.card, on, limits=limits)
    fed: Order | Blend = costed.order(order)
    assert limits.max_running and limits.chunk
    engine = SimulatedEngine(
        pool_tokens=pool,
        overlap=Overlap.EXCLUSIVE,
        budget=ConstantBudget(limits.chunk),
        max_running=limits.max_running,
        gate=True,
        gate_tokens=WORTH_TOKENS,
        reserve=_RESERVE,
        eviction=Eviction.LRU,
        shared_reads=limits.shared_reads,
    )
    outputs = prompts.reference.astype(np.int64)
    step = step_time(workload.model.card, on)
    outcome = simulate(structure.tree, prompts, fed, outputs, step, engine, fixed=prompts.known)
    return outcome.seconds, outcome.hit_tokens, len(prompts)


if __name__ == "__main__":
    main()
