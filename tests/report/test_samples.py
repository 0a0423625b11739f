"""Sample requests of a page: which are chosen, and what is found of them in input and journal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from blendrun.endpoints.base import Usage
from blendrun.engine.base import Result
from blendrun.report.page.requests import Failed, Named, Requests
from blendrun.report.page.samples import Sample, Wish, read_samples, wishes
from blendrun.store.answers import answer_line
from blendrun.store.folder import StateFolder
from blendrun.store.journal import Journal, Record
from blendrun.store.manifest import Manifest

ODD = 'ünï "quoted" \\ id'


def chat(custom_id: str, text: str) -> dict[str, Any]:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]}
    return {"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}


def answered(state: StateFolder, custom_id: str, text: str | None, error: str | None = None) -> None:
    body = b"" if text is None else orjson.dumps({"choices": [{"message": {"content": text}}]})
    result = Result(0, 200 if error is None else 500, body, error_code=error, error_message="it broke" if error else "")
    with Journal(state.journal) as journal:
        line = answer_line(bytes(16), custom_id, result)
        journal.append(Record(bytes(16), error is None, Usage(), ("stop",), error, line))


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "out.jsonl")
    made.path.mkdir()
    return made


def read(state: StateFolder, jobs: Path, *names: str) -> tuple[Sample, ...]:
    manifest = Manifest(1, {}, (str(jobs),), "f", None, "m", "i", "sglang", {})
    return read_samples([Wish(name, 1, "the first") for name in names], state, manifest)


def test_the_first_a_cut_one_a_failed_one_and_the_longest_are_chosen_once_each() -> None:
    first, cut = Named("a", 1), Named("b", 2)
    found = wishes(Requests(first=first, cut_first=(cut,), failed=(Failed("c", 3, "engine_error"),), longest=cut))
    assert [(wish.custom_id, wish.why) for wish in found] == [
        ("a", "the first"),
        ("b", "cut short, the longest"),
        ("c", "failed"),
    ]
    assert wishes(Requests()) == []


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_prompt_is_found_by_its_name_however_that_is_written(
    tmp_path: Path, state: StateFolder, ascii_only: bool
) -> None:
    jobs = tmp_path / "jobs.jsonl"
    lines = [chat("x", f"This prompt speaks of {ODD}."), chat(ODD, "Hello?")]
    jobs.write_text("".join(f"\n{json.dumps(line, ensure_ascii=ascii_only)}\n" for line in lines))
    answered(state, ODD, "Hi.")
    [sample] = read(state, jobs, ODD)
    assert sample.prompt == (("system", "Be brief."), ("user", "Hello?"))
    assert (sample.answer, sample.failed) == ("Hi.", False)


def test_of_a_request_that_was_retried_the_last_answer_counts(tmp_path: Path, state: StateFolder) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_bytes(orjson.dumps(chat("a", "Hello?")))
    answered(state, "a", None, "engine_error")
    assert [(each.answer, each.failed) for each in read(state, jobs, "a")] == [("engine_error: it broke", True)]
    answered(state, "a", "Hi.")
    assert [(each.answer, each.failed) for each in read(state, jobs, "a")] == [("Hi.", False)]


def test_long_texts_are_shown_in_part_and_control_characters_written_out(tmp_path: Path, state: StateFolder) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_bytes(orjson.dumps(chat("a", f"begin {'word ' * 5_000} \x1b[31m the end?")))
    answered(state, "a", "yes " * 5_000)
    [sample] = read(state, jobs, "a")
    shown = sample.prompt[1][1]
    assert shown.startswith("begin word") and shown.endswith("\\x1b[31m the end?") and "characters] …" in shown
    assert len(shown) < 1_000 and len(sample.answer) < 1_000


def test_what_is_packed_is_read_from_the_spool(tmp_path: Path, state: StateFolder) -> None:
    jobs, line = tmp_path / "jobs.jsonl.gz", orjson.dumps(chat("a", "Hello?"))
    jobs.write_bytes(gzip.compress(line))
    answered(state, "a", "Hi.")
    assert read(state, jobs, "a")[0].prompt == ()
    state.spool.mkdir()
    (state.spool / "unpacked").write_bytes(line)
    assert read(state, jobs, "a")[0].prompt[1] == ("user", "Hello?")


def test_what_is_not_there_is_left_out(tmp_path: Path, state: StateFolder) -> None:
    assert read(state, tmp_path / "none.jsonl", "a") == ()
    (tmp_path / "jobs.jsonl").write_text('{"custom_id": "a", "body": 3}\nno JSON "a"\n')
    state.journal.write_bytes(b'blendrun-journal 1\n0000 {"torn "a"\n')
    assert read(state, tmp_path / "jobs.jsonl", "a") == ()
