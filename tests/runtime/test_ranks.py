"""Several ranks of one model on the real engine: each schedules for itself, and all must come to the same steps.

A difference between two ranks would be a deadlock on GPUs, where every layer waits for all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from tests.runtime import scheduler_job as job
from tests.runtime.scheduler_job import SchedulerRun
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.runtime

RANKS = 3
# As SmolLM2-135M has them: what three ranks can divide.
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 144, "intermediate_size": 192}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def run(folder: Path) -> SchedulerRun:
    """Everything that a plan turns on, in a pool too small for what comes: some are sent back."""
    model = write_tiny_model(folder / "model", **HEADS)
    plugged = msgspec.structs.replace(job.plugged(folder / "steps.jsonl"), log_every_rank=True)
    with pytest.MonkeyPatch.context() as patch:
        # SGLang asks for a set of cores for each rank.
        patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "|".join(["0"] * RANKS))
        phases = [job.siblings(), job.misjudged()]
        return job.run_phases(folder, model, plugged, phases, max_total_tokens=job.POOL, tp_size=RANKS)


def steps_of(path: Path) -> list[dict[str, Any]]:
    """All that a rank decided: clocks differ."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("time", "seconds")} for line in lines]


def test_every_hook_took_and_every_request_is_answered(run: SchedulerRun) -> None:
    assert run.info.notes == ()
    for phase, asked in zip(run.phases, (job.ANSWER, job.LONG_ANSWER), strict=True):
        assert {result.status_code for result in phase.results.values()} == {200}
        assert {result.usage.output for result in phase.results.values()} == {asked}


def test_all_ranks_took_the_same_steps(run: SchedulerRun, folder: Path) -> None:
    first, *others = [steps_of(folder / f"{rank}steps.jsonl") for rank in ("", "tp1-", "tp2-")]
    assert len(first) == sum(len(phase.steps) for phase in run.phases)
    assert all(other == first for other in others)


def test_the_job_put_the_ranks_to_the_test(run: SchedulerRun) -> None:
    siblings, misjudged = run.phases
    assert siblings.admitted() == sorted(siblings.admitted())
    assert siblings.total("hit_tokens") == job.GROUPS * (job.EACH - 1) * job.SHARED
    assert max(step["prefill_tokens"] for step in siblings.steps) == job.STEP
    assert misjudged.steps[-1]["retracted"] > 0
