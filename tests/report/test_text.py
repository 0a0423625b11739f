"""The table at the end of a run."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from blendrun.report.terminal.summary import print_summary
from blendrun.store.summary import Cost, Counts, Form, PlanSummary, Summary, Tokens

SUMMARY = Summary(
    schema_version=1,
    status="completed",
    exit_code=0,
    output="answers.jsonl",
    errors=None,
    inputs=("jobs.jsonl",),
    model="m",
    engine="sglang",
    platform="gpu",
    order="given",
    counts=Counts(12_000, 12_000, 0),
    tokens=Tokens(1_000_000, 250_000, 5_000),
    seconds={"run": 12.34, "wall": 20.0},
    throughput={},
    finish_reasons={"stop": 12_000},
    error_codes={},
    versions={},
    notes=(),
)


def said(*, earlier: bool = False, **changes: Any) -> list[str]:
    stream = io.StringIO()
    print_summary(msgspec.structs.replace(SUMMARY, **changes), stream, earlier=earlier)
    return stream.getvalue().splitlines()


def table(**changes: Any) -> dict[str, str]:
    rows = [line.split("  ", 1) for line in said(**changes)[1:]]
    return {name.strip(): value.strip() for name, value in rows}


def test_says_what_came_of_the_job_and_where_it_is() -> None:
    assert said()[0] == "12,000 of 12,000 answered, none failed, in 20 s (run 12 s)"
    assert table() == {
        "tokens": "1,000,000 prompt (25.0 % from the prefix cache), 5,000 output",
        "answers": "answers.jsonl",
        "next": "blendrun report answers.jsonl",
    }


def test_a_job_that_was_finished_before_is_not_told_as_if_it_had_run_now() -> None:
    assert said(earlier=True)[0] == "12,000 of 12,000 answered, none failed, by an earlier run, in 20 s (run 12 s)"


def test_how_fast_it_was_and_how_near_to_what_was_predicted() -> None:
    plan = PlanSummary("blended", "exclusive", "", 5.4, None, times="uncalibrated")
    found = said(plan=plan, throughput={"output_throughput": 405.2})
    assert found[0].endswith(" · 405 tokens/s · run predicted 5 s")
    assert found[2] == "predicted  5 s: uncalibrated"
    assert "predicted" not in said(plan=plan, status="drained")[0]


def test_all_that_was_waited_for_is_told_by_its_parts() -> None:
    found = said(seconds={"start": 1.2, "model": 31.0, "index": 0.1, "load": 8.0, "run": 12.0, "wall": 52.3})
    assert found[0] == "12,000 of 12,000 answered, none failed, in 52 s (start 1 s, model 31 s, load 8 s, run 12 s)"


def test_what_it_cost_at_which_price() -> None:
    assert "cost" not in table()
    cost = Cost(3.0, 2.5)
    assert table(cost=cost)["cost"] == "3.00 at 2.5 an hour, load included; 0.25 per 1,000 answers"
    assert table(cost=cost, devices=8)["cost"].startswith("3.00 at 2.5 an hour for each of 8 devices, load")
    assert "per 1,000" not in table(cost=cost, counts=Counts(9, 0, 9), errors="e.jsonl")["cost"]
    resumed = table(cost=cost, resumed=True)["cost"]
    assert resumed == "3.00 at 2.5 an hour, of this part of the run alone: what came before it is not counted"


def test_what_failed_and_what_was_cut_short_come_first() -> None:
    found = said(
        counts=Counts(9, 6, 3),
        errors="e.jsonl",
        error_codes={"invalid_json": 2, "engine_error": 1},
        cut_short=2,
        cut_short_ids=("long-0", "long-1"),
        unkept=1,
        unkept_ids=("label-3",),
        unkept_list="u.jsonl",
        form=Form(4, 3),
    )
    assert found[0].startswith("6 of 9 answered, 3 failed, ")
    assert found[1:4] == [
        "failed     3 lines (engine_error 1, invalid_json 2), listed in e.jsonl",
        "cut short  2 of 6 answers (33 %) ended at the token limit: long-0, long-1",
        "form       3 of 4 answers have the form asked for; 1 not: label-3 (u.jsonl)",
    ]
    assert found[-1].split() == [
        *["blendrun", "answers", "answers.jsonl", "--cut-short", "--as-requests"],
        *found[-1].split()[5:],
    ]


def test_of_many_that_were_cut_the_first_are_named() -> None:
    row = table(cut_short=700, cut_short_ids=tuple(f"a{place}" for place in range(10)))["cut short"]
    assert row.endswith("a0, a1, a2, a3, a4 and 695 more")


def test_no_line_of_a_file_ends_in_blanks() -> None:
    assert [line for line in said(errors="e.jsonl", cut_short=1) if line != line.rstrip()] == []


def test_a_job_without_tokens_divides_by_nothing() -> None:
    assert table(tokens=Tokens(0, 0, 0), finish_reasons={})["tokens"] == "0 prompt, 0 output"


@pytest.mark.parametrize("path", ["[red]x[/red]/[/y]", ":smile:", "x" * 500, "ü"])
def test_a_path_is_shown_as_it_is_in_one_piece(path: str) -> None:
    assert table(output=path)["answers"] == path


def test_a_log_that_is_gone_costs_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    print_summary(SUMMARY, Gone())
