"""SGLang's responses as OpenAI has them."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.answers import asked_of_sglang, completed, text_offsets
from blendrun.text import without_place


@pytest.mark.parametrize(
    ("text", "tokens", "offsets"),
    [
        ("The sky is", ["The", " sky", " is"], [0, 3, 7]),
        ("", [], []),
        ("a", ["a", "<|im_end|>"], [0, 1]),
        ("é 😀 x", ["é", " \xf0\x9f", "\x98\x80", " x"], [0, 1, 1, 3]),
        ("aaa", ["a", "a", "a"], [0, 1, 2]),
        ("Hello", [" Hello"], [0]),
    ],
)
def test_where_tokens_begin(text: str, tokens: list[str], offsets: list[int]) -> None:
    assert text_offsets(text, tokens) == offsets


def completion(text: str, tokens: list[str], **fields: Any) -> dict[str, Any]:
    logprobs = {
        "text_offset": [-1] * len(tokens),
        "tokens": list(tokens),
        "token_logprobs": [None, *[-1.0] * (len(tokens) - 1)],
        "top_logprobs": [None, *[{"x": -1.0}] * (len(tokens) - 1)],
    }
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length", "matched_stop": None, **fields}
    usage = {
        "prompt_tokens": 2,
        "completion_tokens": 1,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    return {"id": "a", "model": "gpt-x", "choices": [choice], "usage": usage}


def test_the_model_that_answered_is_named() -> None:
    assert completed({"model": "gpt-x", "choices": []}, {"messages": []}, "tiny")["model"] == "tiny"
    assert completed({"model": "gpt-x", "choices": []}, {"messages": []}, "")["model"] == "gpt-x"


def test_offsets_stand_in_completions() -> None:
    answer = completed(completion("ab", ["a", "b"]), {"prompt": "x", "logprobs": 1}, "m")
    assert answer["choices"][0]["logprobs"]["text_offset"] == [0, 1]


SCORED = {"prompt": "ab", "max_tokens": 0, "echo": True, "logprobs": 1}


class TestScoring:
    def test_one_token_is_asked_for_and_dropped(self) -> None:
        assert asked_of_sglang(SCORED) == SCORED | {"max_tokens": 1}
        assert asked_of_sglang(SCORED | {"logprobs": 0})["logprobs"] == 1
        answer = completed(completion("ab!", ["a", "b", "!"]), SCORED, "m")
        choice = answer["choices"][0]
        assert choice["text"] == "ab"
        assert choice["logprobs"] == {
            "text_offset": [0, 1],
            "tokens": ["a", "b"],
            "token_logprobs": [None, -1.0],
            "top_logprobs": [None, {"x": -1.0}],
        }
        assert (answer["usage"]["completion_tokens"], answer["usage"]["total_tokens"]) == (0, 2)

    def test_of_token_ids_too_and_without_alternatives(self) -> None:
        answer = completed(completion("ab!", ["a", "b", "!"]), SCORED | {"prompt": [1, 2], "logprobs": 0}, "m")
        assert answer["choices"][0]["text"] == "ab"
        assert answer["choices"][0]["logprobs"]["top_logprobs"] is None

    def test_other_bodies_are_asked_as_they_are(self) -> None:
        assert asked_of_sglang({"prompt": "x", "max_tokens": 1}) == {"prompt": "x", "max_tokens": 1}


COMPLETIONS, CHAT = ENDPOINTS["/v1/completions"], ENDPOINTS["/v1/chat/completions"]


def test_several_prompts_are_one_answer_in_their_order() -> None:
    body = {"prompt": ["a", "b"], "n": 1}
    bodies = COMPLETIONS.parts(body)
    assert bodies == [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 1}]
    answer = COMPLETIONS.joined(body, [completion("A", ["A"]), completion("B", ["B"])])
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "A"), (1, "B")]
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 2,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_one_prompt_and_chats_stay_what_they_are() -> None:
    assert CHAT.parts({"messages": []}) == [{"messages": []}]
    assert COMPLETIONS.parts({"prompt": [1, 2]}) == [{"prompt": [1, 2]}]
    assert COMPLETIONS.joined({"prompt": [1, 2]}, [completion("A", ["A"])]) == completion("A", ["A"])


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("[17:23:36] /project/cpp/x.cc:4181: Cannot find field nope in #/nope", "Cannot find field nope in #/nope"),
        ("Invalid grammar request: [01:02:03] /a b.cc:1: it", "Invalid grammar request: [01:02:03] /a b.cc:1: it"),
        ("[1] and a/b.cc:2: stay", "[1] and a/b.cc:2: stay"),
    ],
)
def test_a_compiled_library_s_clock_and_line_are_nobody_s_affair(said: str, left: str) -> None:
    assert without_place(said) == left
