"""Lines of OpenAI's Responses API and of Anthropic's batches: chats behind the index, answered in their words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types.messages import MessageBatchIndividualResponse
from openai.types.responses import Response

from blendrun.endpoints.rules import Rules
from blendrun.engine.base import Result
from blendrun.engine.own_words import in_own_words
from blendrun.errors import LineError
from blendrun.jobs.line import RequestLine, parse_line
from blendrun.names import UnknownFields
from blendrun.store.answers import answer_line

KEY = bytes(range(16))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "of a city", "parameters": SCHEMA}
DATA, PNG = "data:image/png;base64,", "iVBORw0KGgo="


STRICT = Rules()


def read(line: dict[str, Any], rules: Rules = STRICT) -> RequestLine:
    return parse_line(orjson.dumps({"custom_id": "x", **line}), rules=rules)


def response(rules: Rules = STRICT, **body: Any) -> RequestLine:
    return read({"url": "/v1/responses", "body": {"input": "Hi", **body}}, rules)


def params(**given: Any) -> RequestLine:
    return read({"params": {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **given}})


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def chat_answer(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    return {
        "id": "chatcmpl-12ab",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": None, **message},
                **choice,
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, **details},
    }


def kept(line: RequestLine, result: Result) -> dict[str, Any]:
    """The line of the output or of the errors file."""
    assert line.spoken is not None
    told = in_own_words(result, line.spoken)
    made: dict[str, Any] = orjson.loads(answer_line(KEY, "x", told, results=line.spoken.results))
    return made


def written(line: RequestLine, answer: Any) -> dict[str, Any]:
    return kept(line, Result(0, 200, orjson.dumps(answer)))


def test_three_ways_to_ask_the_same_are_one_chat() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    chat = read({"url": "/v1/chat/completions", "body": {"messages": said, "max_tokens": 5, "stop": ["."]}})
    other = response(instructions="Be brief.", max_output_tokens=5, stop=["."])
    third = params(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}], stop_sequences=["."]
    )
    assert other.endpoint is third.endpoint is chat.endpoint
    assert other.body == {"messages": said, "max_completion_tokens": 5, "stop": ["."]}
    assert third.body == chat.body
    assert len({chat.content, other.content, third.content}) == 3
    assert all(each.endpoint.demand(each.body).max_new_tokens == 5 for each in (chat, other, third))


def test_items_and_blocks_are_the_messages_of_a_chat() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    said = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "A tool.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "user", "content": "Thanks."},
    ]
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "A tool."}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"role": "user", "content": "Thanks."},
    ]
    blocks = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A tool.", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "text", "text": "Thanks."},
            ],
        },
    ]
    assert response(input=items).body["messages"] == said
    assert params(messages=blocks).body["messages"] == said


def test_tools_and_forms_and_pictures() -> None:
    tool = {"type": "function", "function": FUNCTION}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    url = f"{DATA}{PNG}"
    picture = {"type": "image_url", "image_url": {"url": url}}
    first = response(
        tools=[{"type": "function", **FUNCTION}],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}, "verbosity": "medium"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        input=user({"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": url}),
    ).body
    second = params(
        tools=[{"name": "weather", "description": "of a city", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        messages=user(
            {"type": "text", "text": "What?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
    ).body
    for body in (first, second):
        assert body["tools"] == [tool]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
        assert body["response_format"] == form
        assert body["messages"] == user({"type": "text", "text": "What?"}, picture)
    assert (first["logprobs"], first["top_logprobs"]) == (True, 2)
    assert second["parallel_tool_calls"] is False
    assert params(thinking={"type": "disabled"}).body["chat_template_kwargs"] == {
        "thinking": False,
        "enable_thinking": False,
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"previous_response_id": "resp_1"}, "`previous_response_id`: each line stands alone"),
        ({"conversation": "c"}, "`conversation`"),
        ({"background": True}, "`background`"),
        ({"truncation": "auto"}, "`truncation`"),
        ({"messages": []}, "`messages`: here they are `input`"),
        ({"n": 2}, "`n`: a line has one answer"),
        ({"tools": [{"type": "web_search"}]}, "`tools[0]`: tools of the type 'web_search' are run by a server"),
        ({"tool_choice": {"type": "allowed_tools"}}, "`tool_choice`"),
        ({"input": []}, "`input`"),
        ({"input": None}, "`input`"),
        ({"input": [7]}, "`input[0]`: it must be an object"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "not a reference"),
        ({"input": [{"type": "computer_call"}]}, "'computer_call'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "'input_file'"),
        ({"input": [{"role": "user", "content": "x", "colour": 1}]}, "`messages[].colour` would have no effect"),
        ({"text": {"format": {"type": "grammar"}}}, "`text.format.type`"),
        ({"text": {"verbosity": "low"}}, "`text.verbosity`"),
        ({"include": ["reasoning.encrypted_content"]}, "`include`"),
        ({"max_output_tokens": 0}, "`max_output_tokens` must be a whole number of 1 or more"),
        ({"max_tokens": 5}, "`max_tokens`: here it is `max_output_tokens`"),
        ({"response_format": {"type": "json_object"}}, "here it is `text.format`"),
        ({"text": {"format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}}, "`text.format.schema`"),
        ({"instructions": [{"role": "developer", "content": "x"}]}, "`instructions`: it must be a string"),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{bad"}]},
            "`input[0].arguments`: it must be the JSON text of an object",
        ),
        ({"input": [{"role": "alien", "content": "x"}]}, "`input[0].role`: it must be one of user, assistant"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "`input`: it has nothing to answer"),
        ({"include": [{}]}, "`include[0]`: it must be a string"),
    ],
)
def test_what_a_line_alone_cannot_have_is_refused_by_name(line: dict[str, Any], words: str) -> None:
    with pytest.raises(LineError) as refused:
        response(**line)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "`tools[0]`"),
        ({"tools": [{"name": "x"}]}, "`tools[0].input_schema`"),
        ({"mcp_servers": [{"url": "x"}]}, "`mcp_servers`"),
        ({"messages": user({"type": "redacted_thinking", "data": "x"})}, "nobody here can decrypt it"),
        ({"messages": user({"type": "document", "source": {"type": "url", "url": "x"}})}, "only plain text"),
        ({"messages": user({"type": "image", "source": {"type": "file", "file_id": "x"}})}, "by url"),
        ({"stop": ["."]}, "here it is `stop_sequences`"),
        ({"stop_sequences": "."}, "`stop_sequences`: it must be a list"),
        ({"system": 5}, "`system`: it must be a string, or a list of blocks of text"),
        ({"tool_choice": {"type": ["any"]}}, "`tool_choice.type`: it must be auto, any, tool or none"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}]},
            "`messages[0].content[0]`: a call is in a message of the assistant",
        ),
        ({"n": 2}, "a line has one answer"),
        (
            {
                "messages": user(
                    {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}
                )
            },
            "no model here cites",
        ),
        ({"messages": []}, "`messages`"),
        ({"messages": "Hi"}, "`messages`"),
        ({"thinking": {"type": "often"}}, "`thinking.type`"),
        ({"system": [{"type": "image"}]}, "`system[0]`"),
        ({"stopping": 1}, "`stopping` would have no effect"),
    ],
)
def test_so_it_is_in_a_batch_of_anthropics(line: dict[str, Any], words: str) -> None:
    with pytest.raises(LineError) as refused:
        params(**line)
    assert words in refused.value.message
    assert refused.value.results


def test_fields_without_effect_are_told_of_and_state_never_is_dropped() -> None:
    thinking = params(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000)
    assert thinking.passed_over == ("thinking.budget_tokens",)
    warned = Rules(unknown=UnknownFields.WARN)
    line = orjson.dumps(
        {"custom_id": "x", "url": "/v1/responses", "body": {"input": "Hi", "truncation": "auto", "stream": True}}
    )
    assert parse_line(line, rules=warned).passed_over == ("stream", "truncation")
    stateful = orjson.dumps(
        {"custom_id": "x", "url": "/v1/responses", "body": {"input": "Hi", "previous_response_id": "r"}}
    )
    with pytest.raises(LineError, match="stands alone"):
        parse_line(stateful, rules=warned)


def test_what_says_nothing_adds_nothing() -> None:
    said = [{"role": "user", "content": "Hi"}]
    assert response(instructions="", previous_response_id="").body == {"messages": said}
    empty = params(system=[], stop_sequences=["", ""], tools=[], mcp_servers=[], anthropic_version="bedrock-2023-05-31")
    assert empty.body == {"messages": said, "max_tokens": 5} and not empty.passed_over
    assert params(system=" ", stop_sequences=["", "."]).body == {"messages": said, "max_tokens": 5, "stop": ["."]}


@pytest.mark.parametrize("begun", ["The answer is (", [{"type": "text", "text": "The answer is ("}]])
def test_an_answer_that_is_begun_goes_on_from_there(begun: Any) -> None:
    said = [*user({"type": "text", "text": "Hi"}), {"role": "assistant", "content": begun}]
    body = params(messages=said).body
    assert body["messages"][-1] == {"role": "assistant", "content": "The answer is ("}
    assert body["continue_final_message"] is True
    for others in (said[:1], said[1:], [*said, *said[:1]]):
        assert "continue_final_message" not in params(messages=others).body
    called = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
    assert "continue_final_message" not in params(messages=[*said[:1], called]).body


def test_results_of_tools_stay_where_they_stand_and_what_failed_is_told_of() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "no such city", "is_error": True}
    line = params(messages=user({"type": "text", "text": "Before."}, result, {"type": "text", "text": "After."}))
    assert [(each["role"], each["content"]) for each in line.body["messages"]] == [
        ("user", "Before."),
        ("tool", "no such city"),
        ("user", "After."),
    ]
    assert line.passed_over == ("messages[].is_error",)
    assert not params(messages=user(result | {"is_error": False})).passed_over


def test_a_picture_by_address_needs_its_flag_in_any_words() -> None:
    line = {"url": "/v1/responses", "body": {"input": user({"type": "input_image", "image_url": "http://x.org/a.png"})}}
    with pytest.raises(LineError, match="--allow-media-urls"):
        read(line)
    assert (
        read(line, Rules(media_urls=True)).body["messages"][0]["content"][0]["image_url"]["url"] == "http://x.org/a.png"
    )


def test_answers_parse_as_the_response_of_the_openai_package() -> None:
    call = {"id": "c1", "index": 0, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    token = {"token": "Hi", "bytes": [72, 105], "logprob": -0.1, "top_logprobs": []}
    answer = chat_answer(
        {"content": "Hi", "reasoning_content": "hm", "tool_calls": [call]}, logprobs={"content": [token]}
    )
    line = written(response(tools=[{"type": "function", **FUNCTION, "strict": True}], metadata={"a": "b"}), answer)
    assert line["error"] is None
    found = Response.model_validate(line["response"]["body"])
    assert [item.type for item in found.output] == ["reasoning", "message", "function_call"]
    assert (found.output_text, found.status, found.id) == ("Hi", "completed", "resp_12ab")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.input_tokens_details.cached_tokens) == (9, 4)
    cut = Response.model_validate(
        written(response(), chat_answer({"content": "H"}, finish_reason="length"))["response"]["body"]
    )
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_answers_parse_as_a_result_of_the_anthropic_package() -> None:
    call = {
        "id": "c1",
        "index": 0,
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
    }
    answer = chat_answer({"content": "Hi", "reasoning_content": "hm", "tool_calls": [call]}, finish_reason="tool_calls")
    found = MessageBatchIndividualResponse.model_validate(written(params(), answer))
    assert found.result.type == "succeeded"
    message = found.result.message
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert (message.stop_reason, message.id) == ("tool_use", "msg_12ab")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (5, 4, 3)
    stopped = written(params(stop_sequences=["."]), chat_answer({"content": "Hi"}, matched_stop="."))
    assert stopped["result"]["message"]["stop_reason"] == "stop_sequence"
    assert stopped["result"]["message"]["stop_sequence"] == "."


def test_a_failure_is_an_errored_result_and_an_error_of_ours() -> None:
    line = kept(params(), Result(0, 500, b"", error_code="engine_error", error_message="it died"))
    found = MessageBatchIndividualResponse.model_validate(line)
    assert found.result.type == "errored"
    assert found.result.error.error.message == "it died"
    assert (line["response"], line["error"]) == (None, {"code": "engine_error", "message": "it died"})


@pytest.mark.parametrize("make", [response, params])
def test_an_answer_that_broke_its_promise_stands_beside_the_error_in_the_same_words(make: Any) -> None:
    broken = Result(
        0, 200, orjson.dumps(chat_answer({"content": "no"})), error_code="invalid_answer", error_message="x"
    )
    line = kept(make(), broken)
    assert line["error"]["code"] == "invalid_answer"
    assert line["response"]["body"].get("object", line["response"]["body"].get("type")) in ("response", "message")


@pytest.mark.parametrize("make", [response, params])
@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": "a", "tool_calls": [7]}}]},
        {"choices": [{"message": {"content": "a"}}], "usage": [1]},
        {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}},
        {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens_details": {"cached_tokens": "x"}}},
    ],
)
def test_what_a_server_answers_is_an_error_line_where_it_is_no_chat(make: Any, answer: Any) -> None:
    line = written(make(), answer)
    assert line["error"] == {
        "code": "engine_error",
        "message": line["error"]["message"],
    }
    assert "has not the shape of a chat's" in line["error"]["message"]


def test_a_body_of_anthropics_under_its_url_is_answered_in_openais_line() -> None:
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    line = written(read({"url": "/v1/messages", "body": body}), chat_answer({"content": "Ho"}))
    assert line["response"]["body"]["content"] == [{"type": "text", "text": "Ho"}]
