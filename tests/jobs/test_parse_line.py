"""parse_line: bytes to a request, or to an error that tells the user what to change."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blendrun.endpoints.bounds import _OTHERS, _RANGES
from blendrun.endpoints.fields import REFUSED_FIELDS
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.line import RequestLine, canonical_body, content_digest, parse_line, request_key, salted_key
from tests.good_bodies import GOOD_BODIES
from tests.jobs.job_lines import CHAT, body, line

# As for a server, which knows itself what it reads.
ANY_FIELD = Rules(unknown=None)


def refusal(raw: bytes, **settings: Any) -> LineError:
    with pytest.raises(LineError) as caught:
        parse_line(raw, **settings)
    return caught.value


def test_a_line_gives_its_id_its_endpoint_its_body_and_what_else_it_holds() -> None:
    request = parse_line(line("q-1", body=body(max_tokens=5), metadata={"k": [1]}, note=None))
    assert request.custom_id == "q-1"
    assert request.endpoint is ENDPOINTS[CHAT]
    assert request.body == body(max_tokens=5)
    assert request.extra == {"metadata": {"k": [1]}, "note": None}
    assert request.content == content_digest("q-1", CHAT, body(max_tokens=5))


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b" \t"])
def test_line_endings_and_spaces_around_change_nothing(ending: bytes) -> None:
    assert parse_line(line() + ending) == parse_line(line())


@pytest.mark.parametrize("url", sorted(ENDPOINTS))
def test_every_registered_url_works(url: str) -> None:
    request = parse_line(line(url=url, body=GOOD_BODIES[url]))
    assert request.endpoint.url == url


def test_method_may_be_left_out_and_url_too_where_a_default_is_given() -> None:
    assert parse_line(line(method=..., url=...), default_url=CHAT) == parse_line(line())
    assert parse_line(line(method="post")) == parse_line(line(method="POST"))
    assert parse_line(line(url=None), default_url=CHAT) == parse_line(line())
    other = parse_line(line(url="/v1/completions", body={"prompt": "x"}), default_url=CHAT)
    assert other.endpoint.url == "/v1/completions", "the line's own url comes first"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"hello", "not JSON"),
        (b"", "not JSON"),
        (line()[:-1], "not JSON"),
        (line() + b" x", "unexpected content after document, at column"),
        (b'{"custom_id": x}', "at column 15"),
        ('{"é": x}'.encode(), "at column 7"),
        (b'{"custom_id": NaN}', "not JSON"),
        (b'{"custom_id": -Infinity}', "not JSON"),
        (b'{"custom_id": 1e999}', "number is infinity"),
        (b'{"custom_id": "\\ud83d"}', "surrogate"),
        (b'{"custom_id": "a\xff"}', "byte 0xff at byte offset 16"),
        (b'{"custom_id": "\xed\xa0\x80"}', "byte 0xed at byte offset 15"),
        (line().decode().encode("utf-16"), "not UTF-8: byte 0xff at byte offset 0"),
        (b"\xef\xbb\xbf" + line(), "byte order mark"),
        (b"[" * 100_000, "depth limit"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "depth limit"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_not_json_says_why_and_where(raw: bytes, words: str) -> None:
    error = refusal(raw)
    assert error.code is ErrorCode.INVALID_JSON
    assert words in error.message
    assert error.custom_id is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[1, 2]", "not an array"),
        (b"null", "not null"),
        (b"1.5", "not a number"),
        (line(...), "`custom_id` is missing"),
        (line(None), "`custom_id` is missing"),
        (line(17), "`custom_id` must be a string, not a number"),
        (line({"a": 1}), "not an object"),
    ],
)
def test_a_line_without_a_usable_custom_id_is_refused(raw: bytes, words: str) -> None:
    error = refusal(raw)
    assert error.code is ErrorCode.INVALID_REQUEST
    assert words in error.message
    assert error.custom_id is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (line(method="GET"), '`method` must be "POST"'),
        (line(method=["POST"]), '`method` must be "POST"'),
        (line(url=...), "`url` is missing; these work: /v1/chat/completions, /v1/completions"),
        (line(url="/v1/nothing"), "'/v1/nothing' is not served; these work: /v1/chat/completions"),
        (line(url=["/v1/completions"]), "`url` is not a string"),
        (line(body=...), "`body` is missing"),
        (line(body=[1]), "`body` must be an object, not an array"),
        (line(body=True), "not a boolean"),
        (line(body=body(max_token=3)), "`max_token` would have no effect"),
        (line(body={"messages": []}), "`messages`"),
        (line(body=body(max_tokens=0)), "`max_tokens`"),
        (line(body=body(n=32_768)), "`n` must be at most 32,767"),
    ],
)
def test_what_is_wrong_behind_the_custom_id_is_refused_under_that_id(raw: bytes, words: str) -> None:
    error = refusal(raw)
    assert error.code is ErrorCode.INVALID_REQUEST
    assert words in error.message
    assert error.custom_id == "a"


def test_custom_id_has_1_to_512_characters() -> None:
    assert parse_line(line("é" * 512)).custom_id == "é" * 512
    assert refusal(line("é" * 513)).custom_id == "é" * 513
    assert refusal(line("")).custom_id == ""


def test_a_line_over_the_limit_is_refused_by_its_length_alone() -> None:
    assert "the line has 11 bytes; at most 10" in refusal(b"x" * 11, max_line_bytes=10).message
    assert refusal(b"x" * 10, max_line_bytes=10).code is ErrorCode.INVALID_JSON


def nested(levels: int) -> bytes:
    return b'{"x":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


@pytest.mark.parametrize("field", [b"max_tokens", b"tools"])
@pytest.mark.parametrize("levels", [254, 900])
def test_a_body_too_deep_to_write_back_is_refused_wherever_the_depth_is(field: bytes, levels: int) -> None:
    raw = line(body=body(**{field.decode(): "DEEP"})).replace(b'"DEEP"', nested(levels))
    error = refusal(raw)
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "nesting" in error.message
    assert error.custom_id == "a"


def test_depth_outside_the_body_costs_no_line_its_answer() -> None:
    raw = line(metadata="DEEP").replace(b'"DEEP"', nested(900))
    assert parse_line(raw).custom_id == "a"


def test_numbers_beyond_64_bits_are_no_crash() -> None:
    raw = line(body=body(seed="BIG", max_tokens="BIG")).replace(b'"BIG"', b"9" * 400)
    assert refusal(raw).code is ErrorCode.INVALID_JSON
    raw = line(body=body(seed="BIG")).replace(b'"BIG"', b"9" * 40)
    assert "`seed` must be a whole number from" in refusal(raw).message
    raw = line(body=body(metadata="BIG")).replace(b'"BIG"', b"9" * 40)
    assert canonical_body(parse_line(raw).body)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
field_names = st.sampled_from(
    ["messages", "role", "content", "prompt", "n", "max_tokens", "stream", "temperature", "model", "x"]
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=12,
)
almost_lines = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": st.just("a") | json_values,
        "method": st.just("POST") | json_values,
        "url": st.sampled_from(sorted(ENDPOINTS)) | json_values,
        "body": st.dictionaries(field_names, json_values, max_size=6) | json_values,
        "metadata": json_values,
    },
)


@given(st.binary() | almost_lines.map(orjson.dumps) | st.text().map(str.encode))
@example(b'{"custom_id":"a","url":"/v1/completions","body":{"prompt":[true]}}')
def test_any_bytes_are_a_request_or_a_line_error(raw: bytes) -> None:
    try:
        request = parse_line(raw)
    except LineError as error:
        assert error.code in (ErrorCode.INVALID_JSON, ErrorCode.INVALID_REQUEST)
        assert error.message
        # Whatever is said of a line goes to a JSON file.
        orjson.dumps([error.message, error.custom_id])
    else:
        assert isinstance(request, RequestLine)
        demand = request.endpoint.demand(request.body)
        assert demand.choices >= 1


CHECKED = {"messages", "model", "stream", "n", "max_tokens", "max_completion_tokens"}
CHECKED |= {"temperature", "top_p", "presence_penalty", "frequency_penalty", "custom_params", "chat_template_kwargs"}
CHECKED |= {"lora_path", "top_logprobs", "logit_bias", *REFUSED_FIELDS, *_RANGES, *_OTHERS}


@given(st.dictionaries(text, json_values), st.randoms())
def test_key_order_and_spaces_do_not_change_the_content_digest(fields: dict[str, Any], random: Any) -> None:
    whole = body() | {name: value for name, value in fields.items() if name not in CHECKED}
    shuffled = list(whole.items())
    random.shuffle(shuffled)
    compact = orjson.dumps({"custom_id": "a", "url": CHAT, "body": whole})
    airy = json.dumps({"body": dict(shuffled), "url": CHAT, "custom_id": "a"}, indent=3).encode()
    assert parse_line(compact, rules=ANY_FIELD).content == parse_line(airy, rules=ANY_FIELD).content


def test_the_content_digest_tells_apart_what_differs_in_any_part() -> None:
    variants = [
        ("a", CHAT, body()),
        ("b", CHAT, body()),
        ("a", "/v1/completions", body()),
        ("a", CHAT, body("hello")),
        ("a", CHAT, body(temperature=0)),
        ("a", CHAT, body(temperature=0.0)),
        ("a" + CHAT, "", body()),
    ]
    digests = {content_digest(*variant) for variant in variants}
    assert len(digests) == len(variants)
    assert {len(digest) for digest in digests} == {16}


def test_the_key_of_a_request_depends_on_the_salt_and_can_be_had_from_the_digest_alone() -> None:
    key = request_key("a", CHAT, body(), b"model-1")
    assert key == salted_key(parse_line(line()).content, b"model-1")
    assert len({key, request_key("a", CHAT, body(), b"model-2"), request_key("a", CHAT, body(), b"")}) == 3
    assert len(key) == 16


def test_digests_stay_what_they_are_because_finished_work_is_found_by_them() -> None:
    assert content_digest("a", CHAT, {"b": 1, "a": [None, "é"]}).hex() == "a8005bd7b0a77ecd5a61b01794fdb118"
    assert request_key("a", CHAT, {"b": 1, "a": [None, "é"]}, b"salt").hex() == "2773e8b7ea32058318921b249a49bc54"


@pytest.mark.parametrize("messages", [["y"], [None, 3], "hi", {"role": "user"}, 7])
def test_messages_of_an_endpoint_that_has_none_may_be_anything(messages: object) -> None:
    parse_line(line(url="/v1/completions", body={"prompt": "x", "messages": messages}), rules=ANY_FIELD)
