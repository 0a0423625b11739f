"""Which fields take effect: the table against SGLang's own request models, OpenAI's and the walk that uses it."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as CompletionParams
from openai.types.embedding_create_params import EmbeddingCreateParams as EmbeddingParams

from blendrun.endpoints.apis.registry import APIS
from blendrun.endpoints.effects import BODIES, PLACES, Effect
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.unheeded import check_effects
from blendrun.errors import ErrorCode, LineError
from blendrun.names import UnknownFields
from tests.endpoints.sglang_models import attributes_read, fields_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# Where each of SGLang's request models stands in a body.
MODELS = {
    "ChatCompletionRequest": BODIES[CHAT],
    "CompletionRequest": BODIES[COMPLETIONS],
    "PDRoutingFields": BODIES[CHAT],
    "ChatCompletionMessageGenericParam": PLACES["messages[]"],
    "ChatCompletionMessageUserParam": PLACES["messages[] of the user"],
    "ChatCompletionMessageContentTextPart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentThinkingPart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentImagePart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentVideoPart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentAudioURLPart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentAudioInlinePart": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentToolReferenceBlock": PLACES["messages[].content[]"],
    "ChatCompletionMessageContentImageURL": PLACES["messages[].content[].image_url"],
    "ChatCompletionMessageContentVideoURL": PLACES["messages[].content[].video_url"],
    "ChatCompletionMessageContentAudioURL": PLACES["messages[].content[].audio_url"],
    "ChatCompletionMessageContentInputAudio": PLACES["messages[].content[].input_audio"],
    "ToolCall": PLACES["messages[].tool_calls[]"],
    "FunctionResponse": PLACES["messages[].tool_calls[].function"],
    "Tool": PLACES["tools[]"],
    "Function": PLACES["tools[].function"],
    "ToolChoice": PLACES["tool_choice"],
    "ToolChoiceFuncName": PLACES["tool_choice.function"],
    "ResponseFormat": PLACES["response_format"],
    "LegacyStructuralTagResponseFormat": PLACES["response_format"],
    "StructuresResponseFormat": PLACES["response_format.structures[]"],
    "JsonSchemaResponseFormat": PLACES["response_format.json_schema"],
    "EmbeddingRequest": BODIES["/v1/embeddings"],
    "ScoringRequest": BODIES["/v1/score"],
    "V1RerankReqInput": BODIES["/v1/rerank"],
    "ClassifyRequest": BODIES["/v1/classify"],
}
SPELLED = {"schema_": "schema", "key_order": None}
# Every field that SGLang has and no code of it reads; each is in the table as something else than kept.
UNREAD = {
    CHAT: {"user", "task", "session_params", "min_dynamic_patch", "data_parallel_rank"},
    COMPLETIONS: {"best_of", "suffix", "user", "session_params", "data_parallel_rank", "custom_labels"},
    "/v1/embeddings": {"user"},
    "/v1/score": set(),
    "/v1/rerank": set(),
    "/v1/classify": {"model", "user"},
}


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_sglangs_request_models_has_a_row(model: str) -> None:
    names = {SPELLED.get(name, name) for name in fields_of(model)} - {None}
    # StreamOptions' holder is one row: nothing of it has an effect.
    assert not names - MODELS[model].keys(), "decide on the new field: blendrun/endpoints/effects.py"


@pytest.mark.parametrize(
    ("url", "model"),
    [
        (CHAT, "ChatCompletionRequest"),
        (COMPLETIONS, "CompletionRequest"),
        ("/v1/embeddings", "EmbeddingRequest"),
        ("/v1/score", "ScoringRequest"),
        ("/v1/rerank", "V1RerankReqInput"),
        ("/v1/classify", "ClassifyRequest"),
    ],
)
def test_what_no_code_of_sglang_reads_is_not_called_kept(url: str, model: str) -> None:
    unread = set(fields_of(model)) - attributes_read(url)
    assert unread == UNREAD[url]
    assert not [name for name in unread if BODIES[url][name].effect is Effect.KEPT]


@pytest.mark.parametrize(
    ("url", "params"), [(CHAT, ChatParams), (COMPLETIONS, CompletionParams), ("/v1/embeddings", EmbeddingParams)]
)
def test_every_field_of_openais_requests_has_a_row(url: str, params: type) -> None:
    assert not get_type_hints(params).keys() - BODIES[url].keys()


def test_every_url_of_sglangs_has_a_table() -> None:
    served = {url for url, endpoint in ENDPOINTS.items() if endpoint.serving is not None}
    assert BODIES.keys() == served | APIS.keys()


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], **fields}


def message(role: str = "assistant", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "Hi", **fields}]}


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", **fields}]}]}


def tool(**fields: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": {"name": "f", **fields}}])


WITHOUT_A_WORD = [
    {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "flex", "safety_identifier": "s"},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "stream": False, "stream_options": None},
    {"stream_options": {"include_usage": True}, "modalities": ["text"], "verbosity": "medium", "prediction": {"a": 1}},
    {"best_of": 1, "use_beam_search": False, "length_penalty": 1, "bad_words": [], "echo": False, "max_token": None},
    {"allowed_token_ids": None, "spaces_between_special_tokens": True, "add_generation_prompt": True},
]


@pytest.mark.parametrize("fields", WITHOUT_A_WORD)
def test_what_promises_nothing_passes_without_a_word(fields: dict[str, Any]) -> None:
    assert check_effects(CHAT, chat(**fields), UnknownFields.ERROR) == ()


@pytest.mark.parametrize(
    "body",
    [
        message(annotations=[], id="m", cache_control={"type": "ephemeral"}, refusal=None, audio=None),
        part(cache_control={"type": "ephemeral"}),
        tool(cache_control={}, strict=None),
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"whatever": 1}, "description": "d"}}),
        chat(chat_template_kwargs={"anything": 1}, logit_bias={"1": 1}, metadata={"any": "thing"}),
        tool(parameters={"type": "object", "x-own": 1}),
    ],
)
def test_free_objects_and_marks_of_others_pass(body: dict[str, Any]) -> None:
    assert check_effects(CHAT, body, UnknownFields.ERROR) == ()


BAD = [
    (chat(max_token=2), "max_token", "did you mean `max_tokens`?"),
    (chat(temperatur=0), "temperatur", "did you mean `temperature`?"),
    (chat(prompt="x"), "prompt", "no part of the runtime reads it"),
    (chat(max_output_tokens=2), "max_output_tokens", "here it is `max_tokens`"),
    (chat(system="x"), "system", "the first of the `messages`"),
    (chat(verbosity="low"), "verbosity", "ask for it in the messages"),
    (chat(best_of=3), "best_of", "ask for `n`"),
    (chat(audio={"voice": "x"}), "audio", "answers are text"),
    (chat(modalities=["text", "audio"]), "modalities", "answers are text"),
    (chat(use_beam_search=True), "use_beam_search", "answers are sampled"),
    (chat(prompt_logprobs=1), "prompt_logprobs", "`echo`"),
    (chat(bad_words=["x"]), "bad_words", "logit_bias"),
    (message(contents="x"), "messages[].contents", "did you mean `content`?"),
    (message("user", tool_calls=[1]), "messages[].tool_calls", "no such field"),
    (message("tool", tool_call="x"), "messages[].tool_call", "did you mean"),
    (part(txt="x"), "messages[].content[].txt", "did you mean `text`?"),
    (tool(parameter={}), "tools[].function.parameter", "did you mean `parameters`?"),
    (chat(tool_choice={"type": "function", "function": {"name": "f", "x": 1}}), "tool_choice.function.x", "no part"),
    (chat(response_format={"type": "json_object", "shema": {}}), "response_format.shema", "did you mean `schema`?"),
    (chat(reasoning={"max_tokens": 3}), "reasoning.max_tokens", "thinking_budget"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "size": 1}}]}]},
        "messages[].content[].image_url.size",
        "no part",
    ),
]


@pytest.mark.parametrize(("body", "path", "words"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_nobody_does_is_an_error_that_names_it_or_a_note(body: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(LineError) as caught:
        check_effects(CHAT, body, UnknownFields.ERROR)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.message.startswith(f"`{path}` would have no effect: ")
    assert words in caught.value.message
    assert "--unknown-fields warn" in caught.value.message
    assert check_effects(CHAT, body, UnknownFields.WARN) == (path,)


def test_some_are_only_told_of() -> None:
    assert check_effects(CHAT, message("user", name="bob"), UnknownFields.ERROR) == ("messages[].name",)
    assert check_effects(CHAT, chat(thinking={"type": "enabled"}), UnknownFields.ERROR) == ("thinking",)
    assert check_effects(COMPLETIONS, {"prompt": "x", "suffix": ""}, UnknownFields.ERROR) == ()


def test_a_long_name_is_cut_short() -> None:
    with pytest.raises(LineError) as caught:
        check_effects(CHAT, chat(**{"x" * 10_000: 1}), UnknownFields.ERROR)
    assert len(caught.value.message) < 300


def test_the_models_are_read_as_they_are() -> None:
    """Guards the reader of the models: it must find what stands there."""
    assert {"messages", "tools", "response_format"} <= set(fields_of("ChatCompletionRequest"))
    assert {"temperature", "tools", "stop"} <= attributes_read(CHAT)
