"""Tables and frames of answers whose requests are no chats: SGLang's own requests, and OpenAI's responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import blendrun as blendrun_api
from tests.command import REPLAY, blendrun

COUNTS = ["prompt_tokens", "cached_tokens", "completion_tokens"]


def answered(folder: Path, url: str, bodies: list[dict[str, Any]], output: str) -> Path:
    jobs = [{"custom_id": f"r{row}", "method": "POST", "url": url, "body": body} for row, body in enumerate(bodies)]
    (folder / "in.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    done = blendrun("run", "in.jsonl", "-o", output, *REPLAY, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / output


def generated(folder: Path, output: str, choices: int = 1) -> Path:
    parameters = {"max_new_tokens": 7, "n": choices}
    bodies = [{"text": f"question {row}", "sampling_params": parameters} for row in range(3)]
    return answered(folder, "/generate", bodies, output)


def test_sglangs_own_answers_are_in_the_table_as_those_of_a_chat(tmp_path: Path) -> None:
    table = pq.read_table(generated(tmp_path, "a.parquet"))
    assert table.column_names == ["custom_id", "response", "finish_reason", *COUNTS, "error_code", "error"]
    for row in table.to_pylist():
        assert row["response"]
        assert row["finish_reason"] in ("stop", "length")
        assert row["prompt_tokens"] > 0
        assert row["completion_tokens"] > 0


def test_of_several_choices_the_table_has_lists(tmp_path: Path) -> None:
    rows = pq.read_table(generated(tmp_path, "a.parquet", choices=2)).to_pylist()
    assert {(len(row["response"]), len(row["finish_reason"])) for row in rows} == {(2, 2)}


def test_lines_of_them_become_the_same_table_and_a_frame(tmp_path: Path) -> None:
    for choices in (1, 2):
        folder = tmp_path / str(choices)
        folder.mkdir()
        wanted = pq.read_table(generated(folder, "a.parquet", choices)).to_pylist()
        generated(folder, "b.jsonl", choices)
        done = blendrun("convert", "b.jsonl", "-o", "b.parquet", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert pq.read_table(folder / "b.parquet").to_pylist() == wanted
        for row, wants in zip(blendrun_api.read(folder / "b.jsonl", frame="polars").to_dicts(), wanted, strict=True):
            first = wants["response"] if choices == 1 else wants["response"][0]
            assert row["text"] == first
            assert [row[name] for name in COUNTS] == [wants[name] for name in COUNTS]
            assert row["finish_reason"] in wants["finish_reason"]


def test_openais_responses_are_in_table_and_conversion(tmp_path: Path) -> None:
    bodies = [{"input": f"question {row}", "max_output_tokens": 7} for row in range(3)]
    wanted = pq.read_table(answered(tmp_path, "/v1/responses", bodies, "a.parquet")).to_pylist()
    assert all(row["response"] and row["finish_reason"] and row["completion_tokens"] for row in wanted)
    answered(tmp_path, "/v1/responses", bodies, "b.jsonl")
    assert blendrun("convert", "b.jsonl", "-o", "b.parquet", cwd=tmp_path).returncode == 0
    assert pq.read_table(tmp_path / "b.parquet").to_pylist() == wanted
