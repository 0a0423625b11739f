"""Plain `sglang.Engine` on the CPU without blendrun's hooks: prompts on stdin, texts on stdout, one at a time."""

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
    engine.shutdown()
    print("TEXTS " + orjson.dumps(texts).decode())  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main()
