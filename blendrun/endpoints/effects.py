"""What becomes of each field that a request may have: one table, per place in a body, for SGLang's engine.

SGLang's request models drop what they do not know, and hold some fields that no code of it reads. A line that asks for
such a field gets an answer that is not what it asked for, so each field has a row here, made from the models less what
their code does not read (0.5.23). Servers (`--engine http://...`) know themselves what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blendrun.endpoints.fields import REFUSED_FIELDS


class Effect(StrEnum):
    """kept: the runtime does it. done: blendrun puts it into a field that the runtime reads. idle: it promises nothing
    that a batch could give, so it may stand there. noted: as idle, but the run says how many lines have it. refused: it
    asks for what nobody does, so the line is an error (or is noted, with `--unknown-fields warn`). forbidden: an error
    whatever the flags say.
    """

    KEPT = "kept"
    DONE = "done"
    IDLE = "idle"
    NOTED = "noted"
    REFUSED = "refused"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Field:
    """effect: what becomes of the field. note: how, or why not. harmless: values with which a refused field asks for
    nothing; null never does.
    """

    effect: Effect
    note: str = ""
    harmless: tuple[Any, ...] = ()


def _all(effect: Effect, names: str, note: str = "") -> dict[str, Field]:
    return {name: Field(effect, note) for name in names.split()}


def _refused(note: str, *harmless: Any) -> Field:
    return Field(Effect.REFUSED, note, harmless)


def _forbidden(note: str, *harmless: Any) -> Field:
    return Field(Effect.FORBIDDEN, note, harmless)


def _done(into: str) -> Field:
    return Field(Effect.DONE, into)


_KEPT, _IDLE = Effect.KEPT, Effect.IDLE
_FORBIDDEN = {name: Field(Effect.FORBIDDEN, reason) for name, reason in REFUSED_FIELDS.items()}
_OF_A_SERVER = "of a server's bookkeeping; a batch has none"

_BOTH = {
    **_FORBIDDEN,
    **_all(
        _KEPT,
        "model frequency_penalty presence_penalty repetition_penalty logit_bias logprobs max_tokens n seed stop "
        "stop_token_ids stop_regex no_stop_trim ignore_eos skip_special_tokens temperature top_p top_k min_p "
        "min_tokens regex ebnf response_format lora_path watermark images_config mm_processor_kwargs extra_key "
        "cache_salt return_hidden_states return_routed_experts routed_experts_start_len return_cached_tokens_details "
        "return_spec_tokens_details return_token_ids",
    ),
    "custom_params": Field(_KEPT, "`thinking_budget` alone"),
    **_all(
        _IDLE,
        "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention request_id",
        _OF_A_SERVER,
    ),
    "custom_labels": Field(_IDLE, "labels of a server's metrics"),
    "stream_options": Field(_IDLE, "nothing is streamed into a file"),
    "guided_decoding_backend": Field(_IDLE, "forms are kept by the engine's own grammar backend"),
    "stream": Field(Effect.NOTED, "the answer is one line of the output; `false` without a word", (False,)),
    "guided_json": _done("`response_format`"),
    "guided_regex": _done("`regex`"),
    "guided_choice": _done("`regex`"),
    "guided_grammar": _done("`ebnf`"),
    "structured_outputs": _done("`response_format`, `regex` or `ebnf`"),
    "include_stop_str_in_output": _done("`no_stop_trim`"),
    "guided_whitespace_pattern": _refused("JSON is written with any white space"),
    "structural_tag": _refused("give it as `response_format`"),
    "best_of": _refused("answers are not ranked; ask for `n`", 1),
    "use_beam_search": _refused("answers are sampled", False),
    "length_penalty": _refused("it is for beam search", 1),
    "early_stopping": _refused("it is for beam search", False),
    "truncate_prompt_tokens": _refused("prompts are not cut"),
    "prompt_logprobs": _refused("on /v1/completions `echo` with `logprobs` gives them", False),
    "allowed_token_ids": _refused("no engine here restricts them; see `logit_bias`", []),
    "bad_words": _refused("no engine here forbids words; see `logit_bias`", []),
    "logits_processors": _refused("they are code", []),
    "spaces_between_special_tokens": _refused("it stays as it is", True),
    "detokenize": _refused("answers are text", True),
    "return_tokens_as_token_ids": _refused("see `return_token_ids`", False),
    "kv_transfer_params": _refused("one engine answers a request", {}),
    "vllm_xargs": _refused("the engine is SGLang", {}),
    "extra_body": _refused("OpenAI's client puts what is in it into the body: write those fields beside it", {}),
    # Other APIs' words for what is here.
    **dict.fromkeys(("max_output_tokens", "max_new_tokens"), _refused("here it is `max_tokens`")),
    "stop_sequences": _refused("here it is `stop`", []),
}

_CHAT = {
    **_BOTH,
    **_all(
        _KEPT,
        "messages top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls reasoning reasoning_effort "
        "continue_final_message separate_reasoning max_dynamic_patch use_audio_in_video video_config input_ids "
        "return_prompt_token_ids return_meta_info return_input_ids_in_sglext return_output_ids_in_sglext "
        "return_sampling_mask sampling_logprobs_mode return_flat_raw_output_top_logprobs "
        "return_flat_raw_top_logprobs_b64",
    ),
    "chat_template_kwargs": Field(_KEPT, "whatever the model's template reads; never `chat_template`"),
    "thinking": Field(Effect.NOTED, "read by MiniMax-M3 alone; see `chat_template_kwargs`"),
    "stream_reasoning": Field(_IDLE, "nothing is streamed into a file"),
    "prediction": Field(_IDLE, "it only makes a server faster"),
    "functions": _done("`tools`; a call comes back in `tool_calls`"),
    "function_call": _done("`tool_choice`"),
    "json_schema": _done("`response_format`"),
    "include_reasoning": _done("`separate_reasoning`"),
    "task": _refused("no chat path here reads it"),
    "min_dynamic_patch": _refused("no processor here reads it"),
    "verbosity": _refused("no model here has such a setting; ask for it in the messages", "medium"),
    "modalities": _refused("answers are text", ["text"]),
    "audio": _refused("answers are text"),
    "web_search_options": _refused("nothing is looked up"),
    "documents": _refused("give them as `chat_template_kwargs.documents`", []),
    "chat_template": _refused("a template is code; give one for all lines with --engine-arg chat_template=FILE"),
    "add_generation_prompt": _refused("the template is always rendered up to where the assistant begins", True),
    "add_special_tokens": _refused("the template writes them", False),
    "echo": _refused("messages are not repeated", False),
    "thinking_token_budget": _refused("see `custom_params.thinking_budget`"),
    **dict.fromkeys(("system", "instructions"), _refused("give it as the first of the `messages`", "")),
}

_COMPLETIONS = {
    **_BOTH,
    **_all(_KEPT, "prompt echo json_schema"),
    "max_completion_tokens": _done("`max_tokens`"),
    "suffix": _refused("the engine has no template for filling in", ""),
    "add_special_tokens": _refused("the tokenizer adds what its model was trained with", True),
}

# What SGLang's sampler has beside what these APIs document; clients send it as `extra_body`.
_SAMPLING = (
    "model temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty seed logit_bias "
    "min_tokens ignore_eos stop_token_ids stop_regex no_stop_trim regex ebnf lora_path chat_template_kwargs "
    "separate_reasoning cache_salt extra_key custom_params"
)
_ONE_ANSWER = _forbidden("a line has one answer: write it once for each", 1)
_ALONE = "each line stands alone: write the whole conversation into it"

_RESPONSES = {
    **_FORBIDDEN,
    **_all(_KEPT, f"{_SAMPLING} stop parallel_tool_calls"),
    **_all(
        _IDLE,
        "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention request_id",
        _OF_A_SERVER,
    ),
    "stream_options": Field(_IDLE, "nothing is streamed into a file"),
    "max_tool_calls": Field(_IDLE, "no tool is run here"),
    "stream": Field(Effect.NOTED, "the answer is one line of the output; `false` without a word", (False,)),
    "input": _done("`messages`"),
    "instructions": _done("the first of the `messages`"),
    "max_output_tokens": _done("`max_completion_tokens`"),
    "text": _done("`response_format`"),
    "include": _done("`logprobs`, for `message.output_text.logprobs`"),
    "top_logprobs": _done("`top_logprobs`, where `include` asks for log probabilities"),
    "tools": _done("`tools`, of functions; what a server would run is an error"),
    "tool_choice": _done("`tool_choice`"),
    "reasoning": _done("`reasoning`; its `summary` is passed over: the reasoning comes whole"),
    "background": _refused("every line is answered in its time", False),
    "previous_response_id": _forbidden(_ALONE, ""),
    "conversation": _forbidden(_ALONE),
    "prompt": _forbidden("templates of a server are not here; write the text into `input`"),
    "truncation": _refused("prompts are not cut", "disabled"),
    "context_management": _refused("prompts are not cut", []),
    # A chat's words for what is here.
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), _forbidden("here it is `max_output_tokens`")),
    "messages": _forbidden("here they are `input`"),
    "response_format": _forbidden("here it is `text.format`"),
    "reasoning_effort": _forbidden("here it is `reasoning.effort`"),
    "logprobs": _forbidden("here `include` asks for them", False),
    "n": _ONE_ANSWER,
}

_MESSAGES = {
    **_FORBIDDEN,
    **_all(_KEPT, f"{_SAMPLING} max_tokens"),
    **_all(_IDLE, "metadata service_tier inference_geo request_id", _OF_A_SERVER),
    "cache_control": Field(_IDLE, "the prefix cache needs no marks"),
    "stream": Field(Effect.NOTED, "the answer is one line of the output; `false` without a word", (False,)),
    "messages": _done("`messages`; an answer that the last of them begins goes on from there"),
    "system": _done("the first of the `messages`"),
    "stop_sequences": _done("`stop`"),
    "tools": _done("`tools`; what a server would run is an error"),
    "tool_choice": _done("`tool_choice`, `parallel_tool_calls`"),
    "thinking": _done("`chat_template_kwargs`"),
    "output_config": _done("`response_format`, `reasoning_effort`"),
    "output_format": _done("`response_format`"),
    "container": _refused("no tool is run here"),
    "mcp_servers": _forbidden("no tool is run here", []),
    "context_management": _refused("prompts are not cut", {}),
    "speed": Field(_IDLE, "it only makes a server faster"),
    "anthropic_version": Field(_IDLE, _OF_A_SERVER),
    **_all(Effect.NOTED, "betas anthropic_beta", "what they switch on is in fields of its own"),
    # Other APIs' words for what is here.
    "stop": _forbidden("here it is `stop_sequences`"),
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), _forbidden("here it is `max_tokens`")),
    "response_format": _forbidden("here it is `output_config.format`"),
    "reasoning_effort": _forbidden("here it is `output_config.effort`"),
    "n": _ONE_ANSWER,
}

# What decodes nothing has none of the fields above but these.
_READ = {
    **{name: _BOTH[name] for name in (*_FORBIDDEN, "model", "lora_path", "user", "metadata", "request_id")},
    "truncate_prompt_tokens": _refused("prompts are not cut"),
    "truncation_side": _refused("prompts are not cut"),
    "add_special_tokens": _refused("the tokenizer adds what its model was trained with", True),
    "mm_processor_kwargs": _refused("the inputs are texts"),
    "cache_salt": _refused("no code for what is not decoded reads it"),
}
_OVERRIDES = "vectors in the place of tokens are not taken; the model makes its own"
_HEAD = _refused("numbers come as the model's head is made to give them", True)
_EMBEDDINGS = {
    **_READ,
    **_all(_KEPT, "input encoding_format dimensions"),
    **{name: _refused(_OVERRIDES) for name in ("embed_override_token_id", "embed_overrides")},
    **dict.fromkeys(("normalize", "use_activation"), _HEAD),
    "embed_dtype": _refused("vectors are of 32 bits", "float32"),
    "endianness": _refused("bytes are in little-endian order", "little", "native"),
    "messages": _refused("give what is to be embedded as `input`"),
}
_CLASSIFY = {
    **_READ,
    "model": _done("the adapter of that name"),
    "input": Field(_KEPT),
    **dict.fromkeys(("activation", "use_activation", "softmax"), _HEAD),
    "messages": _refused("give what is to be classified as `input`"),
}
_PAIRS = {**_READ, **dict.fromkeys(("activation", "use_activation"), _HEAD)}
_SCORE = {
    **_PAIRS,
    **_all(
        _KEPT,
        "query items label_token_ids apply_softmax temperature return_token_logprobs item_first "
        "return_pooled_hidden_states score_extraction_token",
    ),
    **_all(_KEPT, "text_1 text_2 queries documents data_1 data_2"),
    **{
        name: _refused(_OVERRIDES)
        for name in ("embed_override_token_id", "query_embed_overrides", "item_embed_overrides")
    },
}
_RERANK = {
    **_PAIRS,
    **_all(_KEPT, "query documents instruct top_n return_documents"),
    "max_tokens_per_doc": _refused("documents are not cut"),
}

# What a tool of Anthropic's, LiteLLM's or vLLM's puts beside the fields of OpenAI; nothing is asked with it.
_MARKS = _all(_IDLE, "cache_control", "the prefix cache needs no marks")
_PART = {**_MARKS, "type": Field(_KEPT), "uuid": Field(_IDLE, "media are known by their content")}
_URL = _all(_KEPT, "url max_dynamic_patch min_dynamic_patch max_long_side_pixel")
_URL["content_hash"] = Field(Effect.FORBIDDEN, "media are known by their content")
_FUNCTION = {
    **_MARKS,
    **_all(_KEPT, "name description parameters strict defer_loading"),
    "eager_input_streaming": Field(_IDLE, "nothing is streamed into a file"),
}
_TOOL = {**_MARKS, **_all(_KEPT, "type function defer_loading")}
_OTHER_ROLE = {
    **_MARKS,
    **_all(_KEPT, "role content tool_call_id name phase reasoning_content tool_calls tools prefix"),
    "reasoning": _done("`reasoning_content`"),
    "function_call": _done("`tool_calls`"),
    **_all(_IDLE, "id annotations", "of an earlier answer; no template reads it"),
    "is_error": Field(Effect.NOTED, "no template is shown it; `content` tells it", (False,)),
    "refusal": _refused("no template reads it; put it into `content`", ""),
    "audio": _refused("no template reads it"),
}
_USER_ROLE = {
    **_MARKS,
    **_all(_KEPT, "role content"),
    "id": Field(_IDLE, "no template reads it"),
    "name": Field(Effect.NOTED, "no template is shown it; write it into `content`"),
    # What a dump of a typed message has beside them; with a value it would have no effect.
    **{name: _refused("a user message has no such field", [], "") for name in ("tool_calls", "refusal")},
}

# By place in a body. A user's message has rows of its own: SGLang has another model for it.
PLACES: dict[str, dict[str, Field]] = {
    "messages[]": _OTHER_ROLE,
    "messages[] of the user": _USER_ROLE,
    "messages[].content[]": {
        **_PART,
        **_all(_KEPT, "text thinking image_url video_url audio_url input_audio modalities name"),
        "annotations": Field(_IDLE, "of an earlier answer; no template reads it"),
    },
    "messages[].content[].image_url": {**_URL, "detail": Field(_KEPT)},
    "messages[].content[].video_url": {
        **_URL,
        **_all(_KEPT, "fps max_frames max_tokens_per_frame max_image_tokens"),
    },
    "messages[].content[].audio_url": _all(_KEPT, "url"),
    "messages[].content[].input_audio": _all(_KEPT, "data format"),
    "messages[].tool_calls[]": {**_MARKS, **_all(_KEPT, "id index type function")},
    "messages[].tool_calls[].function": _all(_KEPT, "name arguments"),
    "messages[].tools[]": _TOOL,
    "messages[].tools[].function": _FUNCTION,
    "tools[]": _TOOL,
    "tools[].function": _FUNCTION,
    "tool_choice": _all(_KEPT, "type function"),
    "tool_choice.function": _all(_KEPT, "name"),
    "response_format": {
        **_all(_KEPT, "type json_schema structures triggers at_least_one format"),
        "schema": _done("`json_schema`"),
        "pattern": _done("`regex`"),
        "grammar": _done("`ebnf`"),
    },
    "response_format.json_schema": {
        **_all(_KEPT, "name schema"),
        "description": Field(_IDLE, "no template is shown it"),
        "strict": Field(_KEPT, "a schema is kept whether strict or not"),
    },
    "response_format.structures[]": _all(_KEPT, "begin schema end"),
    "thinking": {
        "type": Field(_KEPT),
        "budget_tokens": Field(Effect.NOTED, "templates know on and off; `custom_params.thinking_budget` bounds"),
        "display": _refused("the reasoning comes whole", "summarized"),
    },
    "reasoning": {
        **_all(_KEPT, "effort reasoning_effort enabled enable"),
        "summary": Field(_IDLE, "the reasoning comes whole"),
        "exclude": _refused("see `separate_reasoning`", False),
        "max_tokens": _refused("see `custom_params.thinking_budget`"),
    },
}
_GENERATE = {
    **_FORBIDDEN,
    **_all(
        _KEPT,
        "text input_ids sampling_params return_logprob logprob_start_len top_logprobs_num token_ids_logprob "
        "return_text_in_logprobs lora_path",
    ),
    "model": Field(_IDLE, "answers do not name it; `lora_path` names an adapter"),
    "stream": Field(_IDLE, "an answer comes whole"),
}
BODIES: dict[str, dict[str, Field]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _COMPLETIONS,
    "/v1/responses": _RESPONSES,
    "/v1/messages": _MESSAGES,
    "/v1/embeddings": _EMBEDDINGS,
    "/v1/score": _SCORE,
    "/v1/rerank": _RERANK,
    "/v1/classify": _CLASSIFY,
    "/generate": _GENERATE,
}
UNKNOWN = Field(Effect.REFUSED, "no part of the runtime reads it")


def harmless(field: Field, value: Any) -> bool:
    """Whether the field asks for nothing with this value."""
    return value is None or any(value == each and type(value) is type(each) for each in field.harmless)


def names_near(place: Iterable[str], name: str) -> list[str]:
    """Fields of a place that `name` may be a slip of the pen for, at most one."""
    from difflib import get_close_matches

    return get_close_matches(name, list(place), n=1, cutoff=0.8)
