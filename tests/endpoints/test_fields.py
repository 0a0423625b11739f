"""What no request line may set, and that every field of SGLang's own request models has been decided on."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from blendrun.endpoints.fields import REFUSED_FIELDS
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import ErrorCode, LineError
from tests.good_bodies import GOOD_BODIES

MODELS = (
    *("PDRoutingFields", "ChatCompletionRequest", "CompletionRequest", "EmbeddingRequest", "ScoringRequest"),
    *("V1RerankReqInput", "ClassifyRequest"),
)
# Each was followed through SGLang's serving classes: none reads a file, opens an address, runs code or enters the
# state of another request. `messages`, `lora_path`, `custom_params` and `chat_template_kwargs` are looked into.
ALLOWED = frozenset(
    [
        "apply_softmax",
        "best_of",
        "cache_salt",
        "chat_template_kwargs",
        "continue_final_message",
        "custom_labels",
        "custom_params",
        "dimensions",
        "documents",
        "ebnf",
        "echo",
        "embed_override_token_id",
        "embed_overrides",
        "encoding_format",
        "extra_key",
        "frequency_penalty",
        "ignore_eos",
        "images_config",
        "input",
        "input_ids",
        "instruct",
        "item_embed_overrides",
        "item_first",
        "items",
        "json_schema",
        "label_token_ids",
        "logit_bias",
        "logprobs",
        "lora_path",
        "max_completion_tokens",
        "max_dynamic_patch",
        "max_tokens",
        "messages",
        "min_dynamic_patch",
        "min_p",
        "min_tokens",
        "mm_processor_kwargs",
        "model",
        "n",
        "no_stop_trim",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt",
        "query",
        "query_embed_overrides",
        "reasoning_effort",
        "regex",
        "repetition_penalty",
        "response_format",
        "return_cached_tokens_details",
        "return_documents",
        "return_flat_raw_output_top_logprobs",
        "return_flat_raw_top_logprobs_b64",
        "return_hidden_states",
        "return_input_ids_in_sglext",
        "return_meta_info",
        "return_output_ids_in_sglext",
        "return_pooled_hidden_states",
        "return_prompt_token_ids",
        "return_routed_experts",
        "return_sampling_mask",
        "return_spec_tokens_details",
        "return_token_ids",
        "return_token_logprobs",
        "routed_experts_start_len",
        "sampling_logprobs_mode",
        "score_extraction_token",
        "seed",
        "separate_reasoning",
        "skip_special_tokens",
        "stop",
        "stop_regex",
        "stop_token_ids",
        "stream",
        "stream_options",
        "stream_reasoning",
        "suffix",
        "task",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_n",
        "top_p",
        "use_audio_in_video",
        "user",
        "video_config",
        "watermark",
    ]
)


def refusal(url: str, **fields: Any) -> str:
    with pytest.raises(LineError) as caught:
        ENDPOINTS[url].validate(GOOD_BODIES[url] | fields)
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    return caught.value.message


def fields_of_sglang() -> set[str]:
    """Of its request models, read as text: importing them takes half a minute."""
    package = importlib.util.find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        pytest.skip("sglang is not installed")
    path = Path(package.submodule_search_locations[0]) / "srt/entrypoints/openai/protocol.py"
    models = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    fields = {
        statement.target.id
        for name in MODELS
        for statement in models[name].body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return {name for name in fields if not name.startswith("_")}


def test_every_field_of_sglangs_request_models_is_refused_or_known_to_be_harmless() -> None:
    assert not ALLOWED & REFUSED_FIELDS.keys()
    assert fields_of_sglang() == ALLOWED | REFUSED_FIELDS.keys(), "decide on the new field: fields.py says by what"


@pytest.mark.parametrize("url", ENDPOINTS)
class TestRefused:
    @pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
    @pytest.mark.parametrize("value", ["x", 0, [1], {}])
    def test_by_name_and_with_a_reason(self, url: str, name: str, value: object) -> None:
        message = refusal(url, **{name: value})
        assert message == f"`{name}` is not taken: {REFUSED_FIELDS[name]}"

    @pytest.mark.parametrize("name", sorted(REFUSED_FIELDS))
    def test_null_is_the_default(self, url: str, name: str) -> None:
        ENDPOINTS[url].validate(GOOD_BODIES[url] | {name: None})

    def test_the_place_of_the_plan(self, url: str) -> None:
        assert "`custom_params.blendrun` is not taken" in refusal(url, custom_params={"blendrun": [0, 1, 2]})
        assert "`custom_params.__req__`" in refusal(url, custom_params={"thinking_budget": 3, "__req__": 1})
        assert refusal(url, custom_params=[1]) == "`custom_params` must be an object"
        ENDPOINTS[url].validate(GOOD_BODIES[url] | {"custom_params": {"thinking_budget": 3}})

    def test_a_template_of_its_own(self, url: str) -> None:
        message = refusal(url, chat_template_kwargs={"chat_template": "{{ x }}"})
        assert message.startswith("`chat_template_kwargs.chat_template` is not taken: a template is code")
        assert refusal(url, chat_template_kwargs="x") == "`chat_template_kwargs` must be an object"
        ENDPOINTS[url].validate(GOOD_BODIES[url] | {"chat_template_kwargs": {"enable_thinking": False}})
