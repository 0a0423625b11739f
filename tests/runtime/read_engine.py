"""One engine in this process: lines through blendrun's serving, and the same asked of `sglang.Engine` itself.

On stdin {"server_args", "lines": [[url, body]], "encode": [prompt], "score": [arguments]}; on stdout a line each of
what came of them. One after the other, so that what is computed together is the same for both.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson


def main() -> None:
    # As in the engine process: before SGLang is imported.
    import blendrun.engine.cpu.lean  # noqa: F401
    from blendrun.engine.base import EngineSettings, WorkItem
    from blendrun.engine.cpu.engine import ForkingEngine
    from blendrun.engine.serving import Limits, Serving
    from blendrun.engine.settings import server_args

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asked: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    settings = EngineSettings(asked["model"], "cpu", threads=1, server_args=asked["server_args"])
    engine = ForkingEngine(**server_args(settings))
    serving = Serving(engine, Limits(8192, 8185, 49152, honours_seed=True), "tiny")

    async def work() -> None:
        for row, (url, body) in enumerate(asked["lines"]):
            result = await serving.run(WorkItem(row, url, orjson.dumps(body)))
            _tell("ANSWER", [result.status_code, orjson.loads(result.body)])
        for prompt in asked["encode"]:
            _tell("ENCODED", (await engine.async_encode(prompt))["embedding"])
        for arguments in asked["score"]:
            _tell("SCORED", (await engine.async_score(**arguments)).scores)

    loop.run_until_complete(work())
    engine.shutdown()


def _tell(what: str, value: Any) -> None:
    print(f"{what} {orjson.dumps(value).decode()}", flush=True)  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main()
