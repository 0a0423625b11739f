"""The table at the end of a run."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from blendrun.report.terminal.summary import print_summary
from blendrun.store.summary import Counts, Summary, Tokens

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


def table(**changes: Any) -> dict[str, str]:
    stream = io.StringIO()
    print_summary(msgspec.structs.replace(SUMMARY, **changes), stream)
    rows = [line.split("  ", 1) for line in stream.getvalue().splitlines()]
    return {name.strip(): value.strip() for name, value in rows}


def test_says_what_came_of_the_job_and_where_it_is() -> None:
    assert table() == {
        "requests": "12,000: 12,000 answered, 0 failed",
        "tokens": "1,000,000 prompt (25.0 % from the prefix cache), 5,000 output",
        "seconds": "run 12.3  wall 20.0",
        "answers": "answers.jsonl",
    }


def test_failures_and_answers_cut_short_have_a_row() -> None:
    found = table(
        errors="e.jsonl",
        error_codes={"invalid_json": 2, "engine_error": 1},
        finish_reasons={"stop": 3, "length": 1},
    )
    assert found["errors"] == "e.jsonl (engine_error 1, invalid_json 2)"
    assert found["cut short"] == "1 answers (25 %) ended at their token limit"


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
