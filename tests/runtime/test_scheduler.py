"""The scheduler plug-in on the real engine: what the step log says adds up, and what was planned comes true."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.engine.base import SchedulerSettings
from tests.runtime import scheduler_job as job
from tests.runtime.scheduler_job import SchedulerRun
from tests.versions import unexpected

pytestmark = pytest.mark.runtime

SIBLINGS, MISJUDGED, CHOICES = range(3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SchedulerRun:
    folder = tmp_path_factory.mktemp("plugged")
    phases = [job.siblings(), job.misjudged(), job.choices()]
    plugged = job.plugged(folder / "steps.jsonl")
    return job.run_phases(folder, tiny_model, plugged, phases, max_total_tokens=job.POOL)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SchedulerRun:
    """The same requests without any hook of the scheduler, in a pool that holds them all."""
    phases = [job.siblings(), job.misjudged()]
    return job.run_phases(tmp_path_factory.mktemp("bare"), tiny_model, SchedulerSettings(gate=False), phases)


def test_every_hook_took(run: SchedulerRun) -> None:
    assert unexpected(run.info.notes) == []
    assert run.info.kv_tokens == job.POOL


@pytest.mark.parametrize("phase", [SIBLINGS, MISJUDGED])
def test_every_request_is_answered_in_full(run: SchedulerRun, phase: int) -> None:
    asked = [job.ANSWER, job.LONG_ANSWER][phase]
    assert {result.status_code for result in run.phases[phase].results.values()} == {200}
    assert {result.usage.output for result in run.phases[phase].results.values()} == {asked}


@pytest.mark.parametrize("phase", [SIBLINGS, MISJUDGED])
def test_greedy_answers_are_those_of_an_engine_without_the_plug_in(
    run: SchedulerRun, bare: SchedulerRun, phase: int
) -> None:
    assert run.phases[phase].texts() == bare.phases[phase].texts()


class TestStepLog:
    @pytest.mark.parametrize("phase", [SIBLINGS, MISJUDGED])
    def test_it_adds_up_with_the_answers_usage(self, run: SchedulerRun, phase: int) -> None:
        found = run.phases[phase]
        usage = [result.usage for result in found.results.values()]
        prompt, cached = sum(each.prompt for each in usage), sum(each.cached for each in usage)
        assert found.total("hit_tokens") == cached
        assert found.total("prefill_tokens") - found.total("recomputed_tokens") == prompt - cached
        # An answer's first token, and the first after being sent back, comes with a prefill.
        back = found.steps[-1]["retracted"]
        assert found.total("decode_rows") >= sum(each.output - 1 for each in usage) - back

    def test_steps_are_numbered_and_timed(self, run: SchedulerRun) -> None:
        steps = [step for phase in run.phases for step in phase.steps]
        assert [step["step"] for step in steps] == list(range(len(steps)))
        times = [step["time"] for step in steps]
        assert times == sorted(times)
        assert all(step["seconds"] > 0 for step in steps)

    def test_the_pool_is_never_more_than_full(self, run: SchedulerRun) -> None:
        for phase in run.phases:
            for step in phase.steps:
                assert 0 <= step["kv_used"] <= step["kv_used"] + step["evictable"] <= job.POOL
                assert step["context_tokens"] >= step["decode_rows"] >= 0

    def test_prefill_and_decode_take_turns(self, run: SchedulerRun) -> None:
        assert {step["mode"] for step in run.phases[SIBLINGS].steps} == {"prefill", "decode"}


def test_no_step_prefills_more_than_its_budget(run: SchedulerRun) -> None:
    for phase in run.phases:
        assert {step["budget"] for step in phase.steps if step["mode"] == "prefill"} == {job.STEP}
        assert max(step["prefill_tokens"] for step in phase.steps) <= job.STEP
    whole = [step for step in run.phases[SIBLINGS].steps if step["prefill_tokens"] == job.STEP]
    assert len(whole) >= 4, "the first prompt alone fills four steps"


def test_first_admission_is_in_plan_order_whatever_the_order_of_arrival(run: SchedulerRun) -> None:
    submitted = [item.row for item in job.siblings()]
    assert submitted != sorted(submitted)
    assert run.phases[SIBLINGS].admitted() == sorted(submitted)


def test_siblings_find_all_of_their_shared_prefix(run: SchedulerRun) -> None:
    assert run.phases[SIBLINGS].total("hit_tokens") == job.GROUPS * (job.EACH - 1) * job.SHARED


def test_right_estimates_fill_the_pool_and_send_nothing_back(run: SchedulerRun) -> None:
    found = run.phases[SIBLINGS].steps
    assert found[-1]["retracted"] == 0
    assert max(step["kv_used"] for step in found) > 0.8 * job.POOL


def test_who_is_sent_back_comes_in_again_before_those_behind_it(run: SchedulerRun) -> None:
    found = run.phases[MISJUDGED]
    assert found.steps[-1]["retracted"] == sum(len(step["sent_back"]) for step in found.steps)
    assert found.steps[-1]["retracted"] > 0, "the estimates are wrong enough"
    out: set[int] = set()
    for step in found.steps:
        out |= set(step["sent_back"])
        for index in step["admitted"]:
            assert not [other for other in out if other < index], f"{index} came in before one that was sent back"
            out.discard(index)
    assert not out
    assert len(found.admitted()) == len(found.results) + found.steps[-1]["retracted"]


def test_all_choices_of_a_request_carry_its_plan(run: SchedulerRun) -> None:
    # SGLang sends the prompt ahead once, then a copy for each choice.
    assert run.phases[CHOICES].admitted() == [77, 77, 77]
    assert len(run.phases[CHOICES].texts()[0]) == 2
