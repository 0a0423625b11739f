"""Everything a request may ask for works, or is refused by name, on the real runtime."""

from __future__ import annotations

import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from tests.command import blendrun
from tests.runtime import requests
from tests.runtime.feature_run import FeatureRun

pytestmark = pytest.mark.runtime


def test_every_line_comes_back_once_and_in_input_order(feature_run: FeatureRun) -> None:
    assert feature_run.exit_code == 3, feature_run.stderr
    assert list(feature_run.answers) == [line["custom_id"] for line in requests.GOOD]
    assert len(feature_run.errors) == len(requests.BAD)


@pytest.mark.parametrize("line", requests.GOOD, ids=lambda line: line["custom_id"])
def test_bodies_are_openai_s_own_shape(feature_run: FeatureRun, line: dict[str, str]) -> None:
    answer = feature_run.answers[line["custom_id"]]
    assert set(answer) == {"id", "custom_id", "response", "error"}
    assert answer["error"] is None
    assert answer["response"]["status_code"] == 200
    shape = ChatCompletion if line["url"] == "/v1/chat/completions" else Completion
    shape.model_validate(answer["response"]["body"], strict=False)


@pytest.mark.parametrize("place", range(len(requests.BAD)), ids=lambda place: requests.BAD[place][1])
def test_each_bad_line_is_an_error_with_its_code_and_line(feature_run: FeatureRun, place: int) -> None:
    error = feature_run.error(requests.first_bad_line() + place)["error"]
    assert error["code"] == requests.BAD[place][1]
    assert error["message"]


def test_a_failure_of_the_request_itself_keeps_its_http_form(feature_run: FeatureRun) -> None:
    lines = {record["custom_id"]: record for record in feature_run.errors}
    response = lines["bad schema"]["response"]
    assert response["status_code"] == 400
    assert "objet" in response["body"]["error"]["message"]


def test_the_small_model_knows_the_capital_of_france(feature_run: FeatureRun) -> None:
    assert "Paris" in feature_run.text("plain")


def test_n_gives_that_many_choices(feature_run: FeatureRun) -> None:
    choices = feature_run.body("two choices")["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]


def test_logprobs_come_with_alternatives(feature_run: FeatureRun) -> None:
    tokens = feature_run.body("logprobs")["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 4
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)
    assert len(feature_run.body("completion logprobs")["choices"][0]["logprobs"]["tokens"]) == 3


def test_stop_ends_the_answer_before_the_word(feature_run: FeatureRun) -> None:
    choice = feature_run.body("stop")["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "France" not in choice["message"]["content"]


def test_a_seed_reproduces_an_answer_and_another_seed_does_not(feature_run: FeatureRun) -> None:
    assert feature_run.text("seed 7") == feature_run.text("seed 7 again")
    assert feature_run.text("seed 7") != feature_run.text("seed 8")


def test_a_schema_is_kept(feature_run: FeatureRun) -> None:
    answer = json.loads(feature_run.text("schema"))
    assert list(answer) == ["city"]
    assert len(answer["city"]) <= 20


def test_a_required_tool_is_called_in_openai_s_shape(feature_run: FeatureRun) -> None:
    choice = feature_run.body("tool")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    assert set(json.loads(call["arguments"])) == {"city"}


def test_no_hidden_limit_cuts_an_answer(feature_run: FeatureRun) -> None:
    """OpenAI's and SGLang's default for completions is 16 tokens."""
    assert feature_run.body("open end")["usage"]["completion_tokens"] > 16


def test_a_bound_beyond_the_context_is_lowered_not_refused(feature_run: FeatureRun) -> None:
    assert feature_run.body("more than the context")["choices"][0]["finish_reason"] == "stop"


def test_a_shared_prefix_is_computed_once_though_all_who_share_it_came_together(feature_run: FeatureRun) -> None:
    """The admission gate: without it, siblings of one prefill batch each compute the passage."""
    usages = [
        feature_run.body(f"greedy {place}")["usage"]
        for place, prompt in enumerate(requests.PLAIN_PROMPTS)
        if prompt.startswith(requests.PASSAGE)
    ]
    # SGLang before 0.5.22 has no details where nothing was cached.
    cached = sorted((usage["prompt_tokens_details"] or {"cached_tokens": 0})["cached_tokens"] for usage in usages)
    assert len(cached) == 3
    assert cached[0] < 100
    assert min(cached[1:]) > 150


def test_the_hooks_of_the_cpu_platform_took(feature_run: FeatureRun) -> None:
    assert "hook did not take" not in feature_run.stderr


def test_a_finished_job_returns_at_once_without_an_engine(feature_run: FeatureRun) -> None:
    job = feature_run.output.with_name("job.jsonl")
    log = feature_run.output.with_name("answers.jsonl.blendrun") / "engine.log"
    size = log.stat().st_size
    finished = blendrun("run", job, "--model", "smollm2-135m", "--device", "cpu", "-o", feature_run.output)
    assert finished.returncode == 3, finished.stderr
    assert "finished before" in finished.stderr
    assert "phase=load" not in finished.stderr
    assert log.stat().st_size == size, "an engine was started"
