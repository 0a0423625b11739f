"""The order of a run: every accepted row once, what cannot be planned first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.backends.planning import PlanOptions, plan_job
from blendrun.cost.capacity import EngineLimits
from blendrun.errors import UsageError
from blendrun.events import Event, Note, PhaseStarted
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.models.resolve import ResolvedModel, resolve_model
from blendrun.names import OrderName, Overlap
from blendrun.planner.feeder import QueuedRequest
from blendrun.planner.run_plan import Divided, RunPlan
from blendrun.planner.run_planner import RunPlanner


def line(custom_id: str, prompt: str, **body: object) -> str:
    return json.dumps({"custom_id": custom_id, "url": "/v1/completions", "body": {"prompt": prompt, **body}})


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    return resolve_model("smollm2-135m", platform="cpu")


def plan(
    lines: list[str],
    order: OrderName | None,
    model: ResolvedModel,
    folder: Path,
    rows: list[int] | None = None,
    **fields: Any,
) -> RunPlan:
    path = folder / "job.jsonl"
    events: list[Event] = []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with index_jobs(open_sources([path], folder)) as job:
        planner = RunPlanner(model, order, limits=EngineLimits(32_768, 32, 4096), **fields)
        todo = job.accepted if rows is None else np.array(rows)
        made = planner.plan(job, todo, events.append)
    phases = [event.name for event in events if isinstance(event, PhaseStarted)]
    assert phases[0] == "tokenise"
    assert phases[-1] == "simulate"
    return made


def fed(made: RunPlan) -> list[QueuedRequest]:
    found = []
    while (queued := made.feeder.take()) is not None:
        found.append(queued)
    assert [queued.index for queued in found] == list(range(len(found)))
    return found


def planned(lines: list[str], order: OrderName, model: ResolvedModel, folder: Path) -> list[int]:
    return [queued.row for queued in fed(plan(lines, order, model, folder))]


@pytest.mark.parametrize("order", [OrderName.SORTED, OrderName.LOF, OrderName.BLENDED])
def test_every_accepted_row_once(order: OrderName, model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}") for row in range(20)]
    lines.insert(5, "not json")
    rows = planned(lines, order, model, tmp_path)
    assert sorted(rows) == [row for row in range(21) if row != 5]


def test_sorted_puts_siblings_side_by_side(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}") for row in range(20)]
    rows = planned(lines, OrderName.SORTED, model, tmp_path)
    assert len({row % 2 for row in rows[:10]}) == 1


def test_longest_bound_first_where_nothing_else_is_known(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"say {row}", max_tokens=10 * (row + 1)) for row in range(8)]
    rows = planned(lines, OrderName.LOF, model, tmp_path)
    assert rows == list(range(7, -1, -1))


def test_what_has_no_prompt_to_plan_comes_last(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line("a", "hello"), line("b", "word " * 9000), line("c", "hello again")]
    rows = planned(lines, OrderName.SORTED, model, tmp_path)
    assert rows[-1] == 1
    assert sorted(rows) == [0, 1, 2]


def test_prompts_are_those_of_the_template_that_the_engine_gets(model: ResolvedModel, tmp_path: Path) -> None:
    template = tmp_path / "bare.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    lines = [json.dumps({"custom_id": "a", "url": "/v1/chat/completions", "body": chat})]
    own = plan(lines, OrderName.SORTED, model, tmp_path)
    told = plan(lines, OrderName.SORTED, model, tmp_path, arguments={"chat_template": str(template)})
    assert own.prompt_tokens and told.prompt_tokens and told.prompt_tokens <= 2 < own.prompt_tokens


def test_a_model_without_dimensions_cannot_be_planned(model: ResolvedModel, tmp_path: Path) -> None:
    from dataclasses import replace

    bare = replace(model, card=None)
    with pytest.raises(UsageError, match="use --order given or shuffled"):
        planned([line("a", "hello")], OrderName.SORTED, bare, tmp_path)
    # Where no order was asked for, the job runs all the same.
    path = tmp_path / "job.jsonl"
    events: list[Event] = []
    with index_jobs(open_sources([path], tmp_path)) as job:
        made = RunPlanner(bare, None).plan(job, job.accepted, events.append)
    assert made.order is OrderName.GIVEN
    assert [queued.row for queued in fed(made)] == [0]
    warnings = [event.text for event in events if isinstance(event, Note) and event.warning]
    assert any("not planned, fed as given: smollm2-135m has no dimensions" in text for text in warnings)


def test_a_prompt_that_the_pool_cannot_hold_costs_the_others_no_plan(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line("a", "hello"), line("b", "word " * 700), line("c", "hello again")]
    path = tmp_path / "job.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with index_jobs(open_sources([path], tmp_path)) as job:
        planner = RunPlanner(model, OrderName.SORTED, limits=EngineLimits(512, 32, 4096))
        made = planner.plan(job, job.accepted)
    queue = fed(made)
    assert queue[-1].row == 1
    assert queue[-1].prompt == -1
    assert sorted(queued.row for queued in queue) == [0, 1, 2]


def test_auto_is_no_slower_than_the_simple_orders(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}", max_tokens=8) for row in range(40)]
    chosen = plan(lines, None, model, tmp_path)
    assert chosen.why
    assert chosen.predicted_seconds is not None
    for order in (OrderName.GIVEN, OrderName.SORTED, OrderName.LOF):
        seconds = plan(lines, order, model, tmp_path).predicted_seconds
        assert seconds is not None
        # One percent is no difference: the simpler one is taken then.
        assert chosen.predicted_seconds <= 1.011 * seconds


def test_only_what_is_left_is_fed_and_nothing_predicted_of_it(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"say {row}") for row in range(12)]
    rest = plan(lines, OrderName.BLENDED, model, tmp_path, rows=[2, 3, 7])
    assert sorted(queued.row for queued in fed(rest)) == [2, 3, 7]
    assert rest.predicted_seconds is None


def test_what_siblings_share_is_said_to_be_of_use_until_the_last_one(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}") for row in range(8)]
    queue = fed(plan(lines, OrderName.SORTED, model, tmp_path))
    groups = [queue[:4], queue[4:]]
    for group in groups:
        assert [queued.hit > 40 for queued in group] == [False, True, True, True]
        assert [queued.reuse > 40 for queued in group] == [True, True, True, False]


def test_a_mode_that_a_request_forbids_is_left_out_or_refused(model: ResolvedModel, tmp_path: Path) -> None:
    def refusal(mode: Overlap, logprobs: bool) -> str | None:
        return "no logprobs there" if mode is Overlap.MIXED and logprobs else None

    lines = [line(f"r{row}", f"say {row}", logprobs=1 if row == 3 else None) for row in range(6)]
    modes: dict[str, Any] = {"overlaps": (Overlap.EXCLUSIVE, Overlap.MIXED), "refusal": refusal}
    assert plan(lines, None, model, tmp_path, overlap=None, **modes).overlap is Overlap.EXCLUSIVE
    with pytest.raises(UsageError, match="no logprobs there"):
        plan(lines, None, model, tmp_path, overlap=Overlap.MIXED, **modes)
    without = [each for each in lines if "r3" not in each]
    assert plan(without, None, model, tmp_path, overlap=Overlap.MIXED, **modes).overlap is Overlap.MIXED


def heard(planner: RunPlanner, folder: Path) -> tuple[RunPlan, list[Note]]:
    """A plan of four short lines, and what is said on the way."""
    path = folder / "job.jsonl"
    path.write_text("\n".join(line(f"r{row}", f"say {row}") for row in range(4)) + "\n", encoding="utf-8")
    events: list[Event] = []
    with index_jobs(open_sources([path], folder)) as job:
        made = planner.plan(job, job.accepted, events.append)
    return made, [event for event in events if isinstance(event, Note)]


def test_a_gpu_that_nothing_names_is_planned_as_a_stated_card(
    model: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that has the device, and neither nvidia-smi nor the driver's files."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("blendrun.cost.gpus.PROC_FOLDER", tmp_path / "proc")
    made, notes = heard(RunPlanner(model, None, platform="gpu"), tmp_path)
    assert made.simulated is not None
    on = made.simulated.costed.machine
    assert (on.card.name, on.value_bytes) == ("h100-sxm", 2)
    assert any(note.warning and note.text.endswith("planned as for h100-sxm") for note in notes)


@pytest.mark.parametrize(("hardware", "said"), [("h200", True), ("cpu", False)])
def test_times_of_a_gpu_that_are_not_calibrated_are_called_that(
    hardware: str, said: bool, model: ResolvedModel, tmp_path: Path
) -> None:
    made, notes = heard(RunPlanner(model, None, hardware=hardware), tmp_path)
    assert made.times == "not calibrated, real steps take longer", "at the end of a run, beside what was predicted"
    sentence = "times are not calibrated: they rest on the rates of h200"
    assert any(note.text.startswith(sentence) for note in notes) is said


def divide(lines: list[str], replicas: int, model: ResolvedModel, folder: Path, order: OrderName | None) -> Divided:
    path = folder / "job.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with index_jobs(open_sources([path], folder)) as job:
        planner = RunPlanner(model, order, limits=EngineLimits(32_768, 32, 4096))
        return planner.divide(job, job.accepted, replicas)


@pytest.mark.parametrize("order", [None, OrderName.SORTED, OrderName.BLENDED])
def test_replicas_get_parts_of_whole_groups_and_leave_a_reserve(
    order: OrderName | None, model: ResolvedModel, tmp_path: Path
) -> None:
    words = [f"{name} " * 60 for name in ("red", "blue", "green", "white", "black", "grey", "brown", "pink")]
    lines = [line(f"r{row}", f"{words[row % 8]} {row}", max_tokens=16) for row in range(160)]
    lines[7] = "not json"
    found = divide(lines, 3, model, tmp_path, order)
    assert len(found.parts) == 3
    assert found.reserve is not None
    every = [*found.parts, found.reserve]
    rows = [queued.row for plan in every for queued in fed(plan)]
    assert sorted(rows) == [row for row in range(160) if row != 7]
    assert len({(plan.order, plan.overlap) for plan in every}) == 1
    assert order in (None, found.whole.order)
    assert found.whole.simulated is not None
    cut = found.whole.simulated.partition
    assert cut is not None
    assert cut.kept_sharing > 0.9
    assert (cut.compute[:3] > 0.25).all()
    assert 0.02 < cut.compute[3] < 0.1
    whole, slowest = found.whole.predicted_seconds, max(plan.predicted_seconds or 0 for plan in found.parts)
    assert whole is not None
    assert slowest < whole < 1.2 * slowest


def test_subtrees_of_parts_are_those_of_the_whole(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}", max_tokens=8) for row in range(60)]
    found = divide(lines, 2, model, tmp_path, OrderName.SORTED)
    assert found.whole.simulated is not None
    tree = found.whole.simulated.costed.structure.tree
    above = {int(prompt): int(tree.parent[leaf]) for prompt, leaf in zip(tree.prompt, tree.leaf, strict=True)}
    queue = [queued for plan in (*found.parts, found.reserve) if plan is not None for queued in fed(plan)]
    assert {queued.row: queued.subtree for queued in queue} == above


def test_a_job_of_which_nothing_can_be_tokenised_is_fed_all_the_same(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", "x " * 40_000) for row in range(6)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with index_jobs(open_sources([path], tmp_path)) as job:
        planner = RunPlanner(model, None, limits=EngineLimits(32_768, 32, 4096))
        made = planner.plan(job, job.accepted)
    assert sorted(queued.row for queued in fed(made)) == list(range(6))


def test_without_a_plan_consecutive_rows_go_to_each(model: ResolvedModel, tmp_path: Path) -> None:
    found = divide([line(f"r{row}", "x " * 40_000) for row in range(6)], 2, model, tmp_path, None)
    assert sorted(row for plan in found.parts for row in plan.feeder.rows.tolist()) == list(range(6))


class TestTheEnginesPool:
    """What is planned with is a guess until an engine is up."""

    LINES = tuple(
        line(f"r{row}", f"{'red ' * (200 if row % 2 else 5)} {row}", max_tokens=4 if row % 2 else 300)
        for row in range(60)
    )

    def made(self, model: ResolvedModel, folder: Path, order: OrderName = OrderName.BLENDED) -> RunPlan:
        return plan(list(self.LINES), order, model, folder)

    @pytest.mark.parametrize("tokens", [0, 32_768])
    def test_one_that_is_as_planned_or_unknown_changes_nothing(
        self, model: ResolvedModel, tmp_path: Path, tokens: int
    ) -> None:
        assert self.made(model, tmp_path).fitted(tokens) is None

    def test_one_that_is_nearly_as_large_leaves_the_blend(self, model: ResolvedModel, tmp_path: Path) -> None:
        made = self.made(model, tmp_path)
        found = made.fitted(32_000)
        assert found is not None and made.costed is not None
        assert (found.pool.tokens, found.blend) == (32_000, made.costed.blend)

    def test_another_one_is_blended_for_anew(self, model: ResolvedModel, tmp_path: Path) -> None:
        made = self.made(model, tmp_path)
        found = made.fitted(4_000)
        assert found is not None and made.costed is not None
        assert (found.pool.tokens, found.limits.pool_tokens) == (4_000, 4_000)
        assert found.blend is not made.costed.blend
        made.fit(found)
        assert made.learning is not None and made.learning.costed is found
        assert sorted(queued.row for queued in fed(made)) == list(range(60))

    def test_a_list_is_fed_as_it_is(self, model: ResolvedModel, tmp_path: Path) -> None:
        made, same = (self.made(model, tmp_path, OrderName.SORTED) for _ in range(2))
        found = made.fitted(4_000)
        assert found is not None and made.costed is not None and found.blend is made.costed.blend
        made.fit(found)
        assert [queued.row for queued in fed(made)] == [queued.row for queued in fed(same)]


class TestTheEnginesSize:
    def test_a_gpu_is_asked_for_what_runs_at_once(self, model: ResolvedModel, tmp_path: Path) -> None:
        lines = [line(f"r{row}", f"say {row}", max_tokens=200) for row in range(400)]
        made = plan(lines, OrderName.SORTED, model, tmp_path, hardware="h100-sxm")
        assert made.costed is not None and made.max_running is not None
        # The engine was told 32.
        assert made.costed.graph_rows == 32
        assert made.max_running >= 32

    def test_several_devices_are_one_replica(self, model: ResolvedModel, tmp_path: Path) -> None:
        path = tmp_path / "job.jsonl"
        path.write_text("\n".join(line(f"r{row}", f"say {row}") for row in range(400)) + "\n", encoding="utf-8")
        with index_jobs(open_sources([path], tmp_path)) as job:
            plans = [
                RunPlanner(model, OrderName.SORTED, limits=limits, hardware="h100-sxm").plan(job, job.accepted)
                for limits in (EngineLimits(), EngineLimits(tensor=4, stages=2))
            ]
        one, eight = (made.costed for made in plans)
        assert one is not None and eight is not None
        assert (eight.pool.replicas, eight.pool.gpus, eight.machine.gpus) == (1, 8, 8)
        assert eight.machine.flops == 8 * one.machine.flops
        assert eight.pool.tokens > 2 * one.pool.tokens
        # Rows for all of them, but no more than there are.
        assert one.graph_rows == 400
        assert plans[0].predicted_seconds is not None and plans[1].predicted_seconds is not None
        assert plans[1].predicted_seconds < plans[0].predicted_seconds


def test_a_plan_and_a_run_say_the_same(model: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLENDRUN_LEARN", "0")
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}", max_tokens=8) for row in range(30)]
    lines.append(line("long", "word " * 9000))
    run = plan(lines, None, model, tmp_path, hardware="cpu")
    asked = PlanOptions.of(
        {
            "inputs": (str(tmp_path / "job.jsonl"),),
            "model": "smollm2-135m",
            "hardware": "cpu",
            "engine_args": {"max_total_tokens": 32_768, "max_running_requests": 32, "chunked_prefill_size": 4096},
        }
    )
    report, _ = plan_job(asked, lambda _: None)
    (chosen,) = (row for row in report.orders if row.chosen)
    assert (chosen.name, chosen.overlap) == (run.order, run.overlap)
    assert report.why == run.why
    assert [each.code for each in report.findings] == [each.code for each in run.findings] == ["over_context"]


def test_what_will_go_wrong_is_told_once(model: ResolvedModel, tmp_path: Path) -> None:
    path = tmp_path / "job.jsonl"
    path.write_text("\n".join([line("a", "hello"), line("long", "word " * 9000)]) + "\n", encoding="utf-8")
    events: list[Event] = []
    with index_jobs(open_sources([path], tmp_path)) as job:
        planner = RunPlanner(model, None, limits=EngineLimits(32_768, 32, 4096))
        for _ in range(2):
            planner.plan(job, job.accepted, events.append)
    (told,) = [event for event in events if isinstance(event, Note) and event.warning]
    assert told.text == f"1 prompt over the context of smollm2-135m, 8,192 tokens with answer (first: {path}, line 2)"
