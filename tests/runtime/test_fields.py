"""What a line asks for in whatever words is done on the real runtime, or it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.command import blendrun, lines_of
from tests.runtime import field_lines

pytestmark = pytest.mark.runtime


@dataclass(frozen=True)
class FieldRun:
    """What the command left of the field job."""

    stderr: str
    answers: dict[str, dict[str, Any]]
    errors: dict[str, dict[str, Any]]
    unkept: list[dict[str, Any]]

    def choices(self, custom_id: str) -> list[dict[str, Any]]:
        choices: list[dict[str, Any]] = self.answers[custom_id]["response"]["body"]["choices"]
        return choices

    def text(self, custom_id: str) -> str:
        """The answer, in the words of whatever API."""
        record = self.answers[custom_id]
        if "result" in record:
            message = anthropic.types.Message.model_validate(record["result"]["message"])
            return "".join(block.text for block in message.content if block.type == "text")
        if record["response"]["body"]["object"] == "response":
            return openai.types.responses.Response.model_validate(record["response"]["body"]).output_text
        choice = self.choices(custom_id)[0]
        text: str = choice["message"]["content"] if "message" in choice else choice["text"]
        return text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FieldRun:
    folder = tmp_path_factory.mktemp("fields")
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in (*field_lines.GOOD, *field_lines.BAD)))
    # No plan: what is planned is not the matter.
    where = ("--model", "smollm2-135m", "--device", "cpu", "--threads", "1", "--order", "given")
    finished = blendrun("run", job, *where, "-o", output, process=True)
    assert finished.returncode == 3, finished.stderr
    errors = lines_of(Path(f"{output}.errors.jsonl"))
    return FieldRun(
        finished.stderr,
        {record["custom_id"]: record for record in lines_of(output)},
        {record["custom_id"]: record for record in errors},
        lines_of(Path(f"{output}.blendrun/unkept.jsonl")),
    )


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def test_each_line_is_answered_or_an_error(run: FieldRun) -> None:
    assert list(run.answers) == ids(field_lines.GOOD)
    assert list(run.errors) == ids(field_lines.BAD)


@pytest.mark.parametrize("group", field_lines.SAME)
def test_other_ways_to_write_a_request_have_the_same_answer(run: FieldRun, group: str) -> None:
    usual, *others = ids(field_lines.SAME[group])
    assert run.text(usual)
    assert {name: run.text(name) for name in others} == dict.fromkeys(others, run.text(usual))


@pytest.mark.parametrize("custom_id", ids(field_lines.YES_OR_NO))
def test_a_choice_is_kept_whatever_field_asks_for_it(run: FieldRun, custom_id: str) -> None:
    assert run.text(custom_id) in ("yes", "no")


@pytest.mark.parametrize("custom_id", ids(field_lines.OBJECTS))
def test_so_is_a_schema(run: FieldRun, custom_id: str) -> None:
    assert isinstance(json.loads(run.text(custom_id))["blue"], bool)


@pytest.mark.parametrize("custom_id", ids(field_lines.CALLS))
def test_a_call_that_must_come_keeps_its_schema_strict_or_not(run: FieldRun, custom_id: str) -> None:
    call = run.choices(custom_id)[0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    arguments = json.loads(call["arguments"])
    assert list(arguments) == ["city"]
    assert len(arguments["city"]) <= 12


def test_a_prompt_is_scored_without_an_answer(run: FieldRun) -> None:
    control, scored = (run.choices(name)[0]["logprobs"] for name in ("control", "score"))
    assert scored["tokens"] == ["The", " capital", " of", " France", " is", " Paris"]
    assert scored["token_logprobs"][0] is None
    assert scored["token_logprobs"][1:] == pytest.approx(control["token_logprobs"][1:6], abs=1e-4)
    assert run.answers["score"]["response"]["body"]["usage"]["completion_tokens"] == 0
    assert run.text("score") == "The capital of France is Paris"
    of_ids = run.choices("score of ids")[0]["logprobs"]
    assert len(of_ids["tokens"]) == 5
    assert of_ids["top_logprobs"] is None


def test_text_offsets_are_places_in_the_text(run: FieldRun) -> None:
    for name in ("control", "score", "several"):
        for choice in run.choices(name):
            logprobs = choice["logprobs"]
            places = zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
            assert all(choice["text"].startswith(token, place) for place, token in places)


def test_several_prompts_have_their_answers_in_order(run: FieldRun) -> None:
    choices = run.choices("several")
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == [run.text("prompt")] * 2 + [run.text("water")] * 2


def test_the_answer_names_the_model_that_wrote_it(run: FieldRun) -> None:
    bodies = (
        record["result"]["message"] if "result" in record else record["response"]["body"]
        for record in run.answers.values()
    )
    assert {body["model"] for body in bodies} == {"smollm2-135m"}


def test_what_is_passed_over_and_what_breaks_its_form_is_told(run: FieldRun) -> None:
    assert "1 line has `stream`, which has no effect here" in run.stderr
    assert "shows no tools to it" in run.stderr
    assert [entry["custom_id"] for entry in run.unkept] == ["cut short"]
    assert "the form asked for; 1 not: cut short" in run.stderr


def test_what_only_the_engine_knows_is_named(run: FieldRun) -> None:
    messages = [run.errors[line["custom_id"]]["error"]["message"] for line in field_lines.BAD]
    assert messages[0].startswith("`logit_bias`: 99999999 is outside the model's vocabulary")
    assert messages[1].startswith("`response_format.triggers`")
    assert run.errors["stop outside the vocabulary"]["error"]["message"].startswith("`stop_token_ids`: 99999999 is")
    assert run.errors["too many in one of two"]["error"]["code"] == "context_length_exceeded"
