"""What an endpoint refuses without a model, and what it makes of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from blendrun.endpoints.base import AnswerDemand, Usage
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import ErrorCode, LineError
from tests.good_bodies import GOOD_BODIES

CHAT, COMPLETIONS = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/completions"]


def refusal(url: str, body: dict[str, Any]) -> str:
    with pytest.raises(LineError) as caught:
        ENDPOINTS[url].validate(body)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    return caught.value.message


def test_the_order_of_the_registry_is_an_on_disk_code() -> None:
    assert list(ENDPOINTS) == [
        *("/v1/chat/completions", "/v1/completions"),
        *("/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/classify"),
        "/generate",
    ]
    assert all(endpoint.url == url for url, endpoint in ENDPOINTS.items())


@pytest.mark.parametrize("url", ENDPOINTS)
class TestCommonFields:
    @pytest.mark.parametrize(
        "fields",
        [
            {"stream": False},
            {"stream": True},
            {"stream": None, "model": None, "n": None, "max_tokens": None, "temperature": None},
            {"model": "m", "n": 3, "max_tokens": 1, "top_p": 0.5, "presence_penalty": -1},
            {"frequency_penalty": 0.1, "max_completion_tokens": 2**40, "unknown": {"passed": "on"}},
        ],
    )
    def test_good_ones_pass(self, url: str, fields: dict[str, Any]) -> None:
        ENDPOINTS[url].validate(GOOD_BODIES[url] | fields)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("stream", "yes", "`stream` must be true or false, not 'yes'"),
            ("model", 7, "`model` must be a string, not int"),
            ("max_tokens", 0, "`max_tokens` must be a whole number of 1 or more, not 0"),
            ("max_tokens", 1.5, "`max_tokens` must be a whole number of 1 or more, not 1.5"),
            ("max_completion_tokens", "9", "`max_completion_tokens` must be a whole number of 1 or more, not '9'"),
            ("n", True, "`n` must be a whole number of 1 or more, not True"),
            ("n", -1, "`n` must be a whole number of 1 or more, not -1"),
            ("temperature", "hot", "`temperature` must be a number from 0 to 100, not 'hot'"),
            ("top_p", False, "`top_p` must be a number above 0 and at most 1, not False"),
            ("presence_penalty", [], "`presence_penalty` must be a number from -2 to 2, not []"),
            ("frequency_penalty", {}, "`frequency_penalty` must be a number from -2 to 2, not {}"),
        ],
    )
    def test_bad_ones_are_named(self, url: str, name: str, value: object, message: str) -> None:
        assert refusal(url, GOOD_BODIES[url] | {name: value}) == message

    def test_a_long_value_is_not_repeated_in_full(self, url: str) -> None:
        assert len(refusal(url, GOOD_BODIES[url] | {"n": "x" * 10_000})) < 120


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "`messages` must be a list of at least one message"),
        ([], "`messages` must be a list of at least one message"),
        ({"role": "user"}, "`messages` must be a list of at least one message"),
        (["Hi"], "`messages[0]` must be an object, not str"),
        ([{"role": "user"}, {"content": "x"}], "`messages[1].role` must be a string such as 'user'"),
        ([{"role": 1}], "`messages[0].role` must be a string such as 'user'"),
    ],
)
def test_chat_needs_messages(messages: object, message: str) -> None:
    assert refusal(CHAT.url, {"messages": messages}) == message


NO_PROMPT = "`prompt` must be a string, a list of token ids, or a list of several of one kind"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, NO_PROMPT),
        ("", "`prompt` is empty"),
        ([], NO_PROMPT),
        ({}, NO_PROMPT),
        (["a", ""], "`prompt` is empty"),
        ([[1], []], "`prompt` is empty"),
        ([1, True], NO_PROMPT),
        ([[1], [True]], NO_PROMPT),
        (["a", 1], NO_PROMPT),
        ([1, "a"], NO_PROMPT),
    ],
)
def test_completions_need_a_prompt(prompt: object, message: str) -> None:
    assert refusal(COMPLETIONS.url, {"prompt": prompt}) == message


def test_a_list_of_token_ids_is_a_prompt() -> None:
    COMPLETIONS.validate({"prompt": [1, 2, 3]})
    assert COMPLETIONS.prompt_characters({"prompt": [1, 2, 3]}) == 12


def test_demand_is_what_the_body_states() -> None:
    chat = GOOD_BODIES[CHAT.url]
    assert CHAT.demand(chat) == AnswerDemand(1, None)
    assert CHAT.demand(chat | {"n": 3, "max_tokens": 5}) == AnswerDemand(3, 5)
    assert CHAT.demand(chat | {"max_completion_tokens": 7, "max_tokens": 5}) == AnswerDemand(1, 7), (
        "the newer name wins"
    )
    assert COMPLETIONS.demand({"prompt": "x", "max_tokens": 5, "n": 2}) == AnswerDemand(2, 5)


@pytest.mark.parametrize(
    ("content", "characters"),
    [
        ("four", 4),
        (None, 0),
        (7, 0),
        ([{"type": "text", "text": "ab"}, {"type": "image_url", "image_url": {}}, {"text": "c"}], 3),
        ([{"type": "text", "text": 5}, "bare", None, {"text": None}, {"text": ["x"]}], 0),
    ],
)
def test_prompt_characters_of_whatever_passes_validation(content: object, characters: int) -> None:
    body = {"messages": [{"role": "user", "content": content}]}
    CHAT.validate(body)
    assert CHAT.prompt_characters(body) == characters


USAGE = Usage(1, 0, 2)


@pytest.mark.parametrize("choices", [1, 3])
def test_replay_bodies_are_openais(choices: int) -> None:
    chat = CHAT.replay_body(GOOD_BODIES[CHAT.url] | {"n": choices, "model": "m"}, "text", USAGE, "length")
    parsed = ChatCompletion.model_validate(chat, strict=True)
    assert [choice.message.content for choice in parsed.choices] == ["text"] * choices
    assert [choice.index for choice in parsed.choices] == list(range(choices))
    assert (CHAT.usage(chat), CHAT.finish_reasons(chat)) == (USAGE, ("length",) * choices)
    assert parsed.model == "m"
    plain = COMPLETIONS.replay_body(GOOD_BODIES[COMPLETIONS.url] | {"n": choices}, "text", USAGE, "length")
    completion = Completion.model_validate(plain, strict=True)
    assert [choice.text for choice in completion.choices] == ["text"] * choices
    assert completion.usage is not None and completion.usage.total_tokens == 3


def test_a_bound_is_lowered_never_raised_and_set_where_servers_need_one() -> None:
    chat, prompt = GOOD_BODIES[CHAT.url], GOOD_BODIES[COMPLETIONS.url]
    assert CHAT.bound(chat, 5) == chat
    assert CHAT.bound(chat | {"max_tokens": 9}, 5) == chat | {"max_tokens": 5}
    assert CHAT.bound(chat | {"max_completion_tokens": 3, "max_tokens": None}, 5)["max_completion_tokens"] == 3
    assert COMPLETIONS.bound(prompt, 5) == prompt | {"max_tokens": 5}
    assert COMPLETIONS.bound(prompt | {"max_tokens": 3}, 5) == prompt | {"max_tokens": 3}
