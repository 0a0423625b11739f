"""The files a run leaves: OpenAI's lines, in input order, every line of the input in exactly one of the two."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion

from blendrun.engine.base import Result
from blendrun.errors import ErrorCode
from blendrun.events import Event, PhaseStarted
from blendrun.store.answers import answer_line
from tests.runner.runner_job import line, lines_of, no_engine, run, write

KEY = bytes(range(16))


def test_an_answer_is_openais_line_and_nothing_more(tmp_path: Path) -> None:
    completion = json.dumps({"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "x", "n": 2}}).encode()
    run(tmp_path / "out", write(tmp_path / "jobs", line("häß", model="m"), completion))
    chat, plain = lines_of(tmp_path / "out")
    for answer, custom_id in ((chat, "häß"), (plain, "c")):
        assert list(answer) == ["id", "custom_id", "response", "error"]
        assert answer["id"].startswith("batch_req_")
        assert answer["custom_id"] == custom_id
        assert answer["error"] is None
        assert list(answer["response"]) == ["status_code", "request_id", "body"]
        assert answer["response"]["status_code"] == 200
        assert answer["response"]["request_id"].startswith("req_")
    assert ChatCompletion.model_validate(chat["response"]["body"], strict=True).choices[0].message.content
    assert len(Completion.model_validate(plain["response"]["body"], strict=True).choices) == 2


def test_the_body_is_passed_on_byte_by_byte() -> None:
    body = b'{"b":1.0,"a":{"x":1e2},"text":"\\u00e4\\/"}'
    text = answer_line(KEY, "a\n\t\"b'", Result(3, 200, body))
    assert body in text
    assert b"\n" not in text and b"\t" not in text
    assert orjson.loads(text)["custom_id"] == "a\n\t\"b'"


def test_a_failure_keeps_its_status_and_body_and_one_without_a_response_has_none() -> None:
    failed = Result(0, 400, b'{"error":{"message":"no"}}', error_code="invalid_request", error_message="no")
    whole = orjson.loads(answer_line(KEY, "a", failed))
    assert whole["response"] == {
        "status_code": 400,
        "request_id": f"req_{KEY.hex()}",
        "body": {"error": {"message": "no"}},
    }
    assert whole["error"] == {"code": "invalid_request", "message": "no"}
    bare = orjson.loads(answer_line(KEY, "a", Result(0, 0, b"", error_code="batch_cancelled", error_message="x")))
    assert bare["response"] is None


class TestErrorsFile:
    LINES = (b"not json", line("a"), line("b", max_tokens=0), line("a", "again"), line("c"))

    def test_each_failed_line_says_code_message_and_line(self, tmp_path: Path) -> None:
        summary = run(tmp_path / "out", write(tmp_path / "jobs", *self.LINES), engine={"fail_every": 5})
        errors = lines_of(tmp_path / "out.errors.jsonl")
        assert [list(error) for error in errors] == [["id", "custom_id", "response", "error"]] * 4
        assert [error["custom_id"] for error in errors] == [None, "b", "a", "c"]
        assert [list(error["error"]) for error in errors] == [["code", "message", "line"]] * 4
        assert [(error["error"]["code"], error["error"]["line"]) for error in errors] == [
            (ErrorCode.INVALID_JSON, 1),
            (ErrorCode.INVALID_REQUEST, 3),
            (ErrorCode.DUPLICATE_CUSTOM_ID, 4),
            (ErrorCode.ENGINE_ERROR, 5),
        ]
        assert [error["response"] is None for error in errors] == [True, True, True, False]
        assert errors[3]["response"]["status_code"] == 500
        assert errors[3]["response"]["body"]["error"]["code"] == "engine_error"
        assert errors[1]["error"]["message"] == "`max_tokens` must be a whole number of 1 or more, not 0"
        assert [answer["custom_id"] for answer in lines_of(tmp_path / "out")] == ["a"]
        assert summary.exit_code == 3
        assert summary.error_codes == {
            "engine_error": 1,
            "invalid_json": 1,
            "invalid_request": 1,
            "duplicate_custom_id": 1,
        }

    def test_with_several_inputs_it_says_the_file_too(self, tmp_path: Path) -> None:
        one, two = write(tmp_path / "1", b"", b'{"custom_id": "x"}'), write(tmp_path / "2", line("a"), b"no")
        run(tmp_path / "out", one, two)
        places = [error["error"] for error in lines_of(tmp_path / "out.errors.jsonl")]
        assert [(place["file"], place["line"]) for place in places] == [(str(one), 2), (str(two), 2)]

    def test_there_is_none_where_no_line_failed_and_an_old_one_goes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "jobs", line("a"), line("b"))
        run(tmp_path / "out", path, engine={"fail_every": 2})
        assert (tmp_path / "out.errors.jsonl").exists()
        summary = run(tmp_path / "out", path, retry_errors=True)
        assert not (tmp_path / "out.errors.jsonl").exists()
        assert (summary.exit_code, summary.errors) == (0, None)

    def test_a_job_of_bad_lines_only_ends_without_an_engine_and_with_an_empty_output(self, tmp_path: Path) -> None:
        summary = run(tmp_path / "out", write(tmp_path / "jobs", b'{"custom_id": "x"}', b"[]"), engine=no_engine)
        assert summary.exit_code == 3
        assert (tmp_path / "out").read_bytes() == b""
        assert len(lines_of(tmp_path / "out.errors.jsonl")) == 2


def test_the_output_is_absent_until_it_is_complete_and_nothing_else_stays(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    class Listener(list[Event]):
        def append(self, event: Event) -> None:
            phase = event.name if isinstance(event, PhaseStarted) else "between"
            seen.append((phase, (tmp_path / "out").exists()))

    run(tmp_path / "out", write(tmp_path / "jobs", line("a"), b"no"), events=Listener())
    assert ("write", False) in seen
    assert not any(exists for _, exists in seen)
    assert {path.name for path in tmp_path.iterdir()} == {"jobs", "out", "out.errors.jsonl", "out.blendrun"}
    assert {path.name for path in (tmp_path / "out.blendrun").iterdir()} == {
        "journal",
        "lines",
        "lock",
        "manifest.json",
        "records.jsonl",
        "status.json",
        "summary.json",
    }


BAD: list[bytes] = [
    b"null",
    b"{",
    b"\xff",
    b'"text"',
    b'{"custom_id": "x"}',
    line("bad", max_token=1),
    line("bad", messages=[]),
]
KINDS = st.sampled_from(["good", "good", "good", "duplicate", "fails", "blank", *range(len(BAD))])


@given(st.lists(KINDS, min_size=1, max_size=25), st.sampled_from(["given", "shuffled"]), st.data())
def test_lines_out_and_error_lines_are_the_lines_in_each_once_and_in_order(
    kinds: list[Any], order: Any, data: st.DataObject
) -> None:
    """Also when the run is cut off after any number of answers, and resumed."""
    lines, expected, ids = [], [], 0
    for kind in kinds:
        if isinstance(kind, int):
            lines.append(BAD[kind])
        elif kind == "blank":
            lines.append(b"  ")
            continue
        elif kind == "duplicate" and ids:
            lines.append(line(f"id {data.draw(st.integers(0, ids - 1))}", "other text"))
        else:
            lines.append(line(f"id {ids}", f"text {ids}"))
            expected.append((len(lines), f"id {ids}"))
            ids += 1
    if not any(b"custom_id" in text for text in lines):
        # Refused whole, or without a line.
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, out = write(folder / "jobs", *lines), folder / "out"
        every = data.draw(st.integers(0, 4), label="fail_every")
        run(out, path, engine={"fail_every": every, "slots": 3}, order=order)
        answers, errors = lines_of(out), lines_of(folder / "out.errors.jsonl") if any_failed(folder) else []
        if ids:
            cut_journal(folder, data)
            run(out, path, engine={"fail_every": every, "slots": 2}, order=order)
            assert answers == lines_of(out)
            assert errors == (lines_of(folder / "out.errors.jsonl") if any_failed(folder) else [])
    failed = [(error["error"]["line"], error["custom_id"]) for error in errors]
    numbers = {custom_id: number for number, custom_id in expected}
    answered = [(numbers[answer["custom_id"]], answer["custom_id"]) for answer in answers]
    assert answered == sorted(answered)
    assert failed == sorted(failed, key=lambda place: place[0])
    places = sorted(number for number, _ in answered + failed)
    assert places == [number for number, text in enumerate(lines, 1) if text.strip()]
    assert set(expected) <= set(answered + failed)


def any_failed(folder: Path) -> bool:
    return (folder / "out.errors.jsonl").exists()


def cut_journal(folder: Path, data: st.DataObject) -> None:
    """As kill -9 leaves it: a journal of any length, no summary, no output."""
    journal = folder / "out.blendrun" / "journal"
    size = data.draw(st.integers(0, journal.stat().st_size), label="bytes of the journal")
    journal.write_bytes(journal.read_bytes()[:size])
    (folder / "out.blendrun" / "summary.json").unlink()
    (folder / "out").unlink()


@pytest.mark.parametrize("name", ["answers.jsonl", "with blank", "[red]x[/red]", "ü⟨λ⟩", "-dash", "x" * 237])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    run(tmp_path / name, write(tmp_path / "jobs", line("a"), b"no"))
    assert len(lines_of(tmp_path / name)) == len(lines_of(tmp_path / f"{name}.errors.jsonl")) == 1
