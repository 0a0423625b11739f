"""Prompt ids by SGLang's own chat serving code, without an engine: cases on stdin, ids or null on stdout.

The serving class is built without its constructor, which wants a running engine; the attributes set here are what
`_process_messages` reads.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import orjson


def main() -> None:
    from transformers import AutoTokenizer

    asked: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    own = tokenizer.chat_template
    ids = []
    for case in asked["cases"]:
        tokenizer.chat_template = case["template"] or own
        ids.append(_ids(_serving(tokenizer, case["defaults"]), case["body"]))
    print("IDS " + orjson.dumps(ids).decode())  # noqa: T201  # the parent reads it


def _serving(tokenizer: Any, defaults: dict[str, Any]) -> Any:
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
    from sglang.srt.parser.jinja_template_utils import (
        detect_jinja_template_content_format,
        jinja_template_may_reorder_tool_results,
    )
    from sglang.srt.parser.template_detection import detect_reasoning_pattern

    template = tokenizer.chat_template
    manager = SimpleNamespace(
        reasoning_config=detect_reasoning_pattern(template)[1],
        chat_template_name=None,
        python_chat_template=None,
        jinja_template_content_format=detect_jinja_template_content_format(template),
        jinja_template_may_reorder_tool_results=jinja_template_may_reorder_tool_results(template),
    )
    serving = OpenAIServingChat.__new__(OpenAIServingChat)
    vars(serving).update(
        tokenizer_manager=SimpleNamespace(tokenizer=tokenizer, served_model_name="m"),
        template_manager=manager,
        default_chat_template_kwargs=defaults,
        reasoning_parser=None,
        tool_call_parser=None,
        is_gpt_oss=False,
        is_gemma4=False,
        is_minimax_m3=False,
        chat_encoding_spec=None,
        _encoding_adapter=None,
        _reasoning_detector=None,
        _tokenizer_auto_adds_specials=len(tokenizer.encode("")) > 0,
        _prompt_text_round_trip_is_lossy=False,
    )
    return serving


def _ids(serving: Any, body: dict[str, Any]) -> list[int] | None:
    """What blendrun's engine does with a body up to its ids; None where it would refuse."""
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
    from sglang.srt.function_call.utils import normalize_json_schema_types

    try:
        request = ChatCompletionRequest(**{name: value for name, value in body.items() if value is not None})
        for tool in serving._effective_tools(request):
            normalize_json_schema_types(tool.function.parameters)
        # As the first lines of _convert_to_internal_request.
        effort = (request.chat_template_kwargs or {}).pop("reasoning_effort", None)
        if effort is not None:
            request.reasoning_effort = effort
        ids: list[int] = serving._process_messages(request, False).prompt_ids
    except (ValueError, TypeError, KeyError):
        return None
    return ids


if __name__ == "__main__":
    main()
