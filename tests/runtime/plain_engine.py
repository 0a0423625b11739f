"""Plain `sglang.Engine` on the CPU without blendrun's hooks: prompts on stdin, texts on stdout, one at a time.

Also the ids that SGLang's chat serving makes of bodies, which takes a running engine but no generation.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson


def main() -> None:
    from sglang.srt.entrypoints.engine import Engine

    asked: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    engine = Engine(**asked["server_args"])
    texts = [
        engine.generate(prompt, {"temperature": 0, "max_new_tokens": asked["tokens"]})["text"]
        for prompt in asked["prompts"]
    ]
    ids = _chat_ids(engine, asked["chats"])
    engine.shutdown()
    print("TEXTS " + orjson.dumps(texts).decode())  # noqa: T201  # the parent reads it
    print("IDS " + orjson.dumps(ids).decode())  # noqa: T201


def _chat_ids(engine: Any, bodies: list[dict[str, Any]]) -> list[list[int]]:
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
    from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

    serving = OpenAIServingChat(engine.tokenizer_manager, engine.template_manager)
    requests = [ChatCompletionRequest(**body) for body in bodies]
    # The validator also names types of tool parameters as the prompt will have them.
    refused = [refusal for request in requests if (refusal := serving._validate_request(request))]
    if refused:
        raise ValueError(refused)
    return [serving._convert_to_internal_request(request, None)[0].input_ids for request in requests]


if __name__ == "__main__":
    main()
