"""Answers that break their form are counted, listed and told of, or are error lines; what has no effect is told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blendrun.endpoints.rules import Rules
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.events import Event, Note
from blendrun.names import UnknownFields
from blendrun.runner.run import execute
from blendrun.store.summary import Summary
from tests.runner.runner_job import line, lines_of, no_engine, settings, write

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def run(out: Path, jobs: Path, events: list[Event] | None = None, **changes: Any) -> Summary:
    """Placeholders, which keep no form, as if a model had written them."""
    heard = [] if events is None else events
    asked = settings(out, jobs, **{"engine": "sglang", **changes})
    return execute(asked, lambda *_: ReplayEngine(ReplaySettings()), heard.append)


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and event.warning]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    forced = line("forced", tools=TOOLS, tool_choice="required")
    return write(tmp_path / "jobs.jsonl", line("free"), line("form", response_format=SCHEMA), b"", forced)


def test_they_stay_answers_and_are_counted_and_listed_in_input_order(jobs: Path, out: Path) -> None:
    events: list[Event] = []
    summary = run(out, jobs, events)
    assert (summary.exit_code, summary.counts.completed, summary.unkept) == (0, 3, 2)
    assert summary.unkept_list == f"{out}.blendrun/unkept.jsonl"
    listed = lines_of(Path(summary.unkept_list))
    assert [(entry["custom_id"], entry["line"]) for entry in listed] == [("form", 2), ("forced", 4)]
    assert "is no JSON" in listed[0]["reason"]
    assert listed[1]["reason"] == "no tool was called"
    assert [entry["id"] for entry in listed] == [answer["id"] for answer in lines_of(out)[1:]]
    assert len([text for text in warnings(events) if "does not keep its form" in text]) == 1


def test_the_count_outlives_the_run(jobs: Path, out: Path) -> None:
    run(out, jobs)
    again = execute(settings(out, jobs, engine="sglang"), lambda *_: no_engine(), lambda _: None)
    assert again.unkept == 2
    more = write(jobs, *jobs.read_bytes().split(b"\n")[:2], line("later", response_format=SCHEMA))
    changed = run(out, more, accept_changes=True)
    assert changed.unkept == 2
    assert changed.unkept_list is not None
    assert [entry["custom_id"] for entry in lines_of(Path(changed.unkept_list))] == ["form", "later"]


def test_a_run_that_begins_anew_has_none_of_the_run_before(jobs: Path, out: Path) -> None:
    run(out, jobs)
    write(jobs, line("free"))
    summary = run(out, jobs, resume=False)
    assert (summary.unkept, summary.unkept_list) == (0, None)


def test_they_are_error_lines_where_that_is_asked_for_with_the_answer_beside_it(jobs: Path, out: Path) -> None:
    summary = run(out, jobs, check_answers=True)
    assert (summary.exit_code, summary.counts.completed, summary.unkept) == (3, 1, 0)
    errors = lines_of(out.with_name(f"{out.name}.errors.jsonl"))
    assert [(record["custom_id"], record["error"]["code"]) for record in errors] == [
        ("form", "invalid_answer"),
        ("forced", "invalid_answer"),
    ]
    assert errors[0]["response"]["body"]["choices"][0]["message"]["content"]


def test_placeholders_are_not_looked_at(jobs: Path, out: Path) -> None:
    assert run(out, jobs, engine="replay").unkept == 0


def test_fields_that_are_passed_over_are_counted(tmp_path: Path, out: Path) -> None:
    jobs = write(
        tmp_path / "jobs.jsonl", line("a", max_token=1), line("b", max_token=2), line("c", stream=True), line("d")
    )
    events: list[Event] = []
    summary = run(out, jobs, events, rules=Rules(unknown=UnknownFields.WARN))
    assert summary.counts.completed == 4
    assert "2 lines have `max_token`, which has no effect here" in warnings(events)
    assert "1 line has `stream`, which has no effect here" in warnings(events)


def test_of_very_many_only_some_are_named(tmp_path: Path, out: Path) -> None:
    jobs = write(tmp_path / "jobs.jsonl", *(line(str(number), "Hello", **{f"own_{number}": 1}) for number in range(15)))
    events: list[Event] = []
    run(out, jobs, events, rules=Rules(unknown=UnknownFields.WARN))
    assert len([text for text in warnings(events) if "has no effect here" in text]) == 10
    assert "5 more fields of lines have no effect here" in warnings(events)


@pytest.mark.parametrize(("shows", "told"), [(False, True), (True, False), (None, False)])
def test_tools_that_the_template_does_not_show_are_told_of(
    jobs: Path, out: Path, shows: bool | None, told: bool
) -> None:
    events: list[Event] = []
    run(out, jobs, events, shows_tools=shows)
    sentence = "1 line brings `tools`, and the chat template of replay shows no tools to it"
    assert (sentence in warnings(events)) is told
