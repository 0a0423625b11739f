"""A stage that answers requests: an engine in each of its workers."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.backends.sglang import engine_settings
from blendrun.endpoints.apis.base import Spoken
from blendrun.endpoints.rules import Rules
from blendrun.engine.base import Engine, Platform, Result, WorkItem
from blendrun.engine.own_words import in_own_words
from blendrun.engine.process import SglangEngine
from blendrun.engine.settings import available_cores, detect_platform, needs_weights
from blendrun.errors import EngineUnavailableError, ErrorCode, LineError, UsageError
from blendrun.events import ignore
from blendrun.jobs.line import parse_line
from blendrun.models.resolve import resolve_model
from blendrun.names import UnknownFields
from blendrun.ray_data.rows import ToRequest, request_line

_T = TypeVar("_T")
# Of an engine that dies; what had been answered by then stays.
_RESTARTS = 1
# A table has columns that are nobody's fields.
_OF_TABLES = Rules(unknown=UnknownFields.WARN)


class Answers:
    """For `Dataset.map_batches(Answers, fn_constructor_kwargs={"model": ...}, concurrency=..., num_gpus=...)`.

    Adds three columns: `response` (the OpenAI answer as JSON text, null where there is none), `error` (code and message
    as JSON text, null where there is none) and `output_tokens`. A row that fails costs no other row its answer.

    The engine starts with the worker and keeps its prefix cache from one batch to the next. It runs dry at the end of
    each batch, so let batches be much larger than what it runs at once (`batch_size` 1,000 and more).
    """

    def __init__(
        self,
        model: str,
        *,
        to_request: ToRequest | None = None,
        engine_args: dict[str, Any] | None = None,
        device: Platform | None = None,
        threads: int | None = None,
    ) -> None:
        """engine_args: SGLang's, as `--engine-arg`. device: None for a GPU if there is one. threads: on a CPU.

        Raises UsageError, InputMissingError, EngineUnavailableError.
        """
        platform = device or detect_platform()
        given = engine_args or {}
        resolved = resolve_model(model, platform=platform, weights=needs_weights(given))
        self._to_request = to_request
        self._folder = TemporaryDirectory(prefix="blendrun-ray-data-")
        self._settings = engine_settings(resolved, platform, threads or available_cores(), given)
        # One loop for the engine's whole life; a batch is a call into it.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="blendrun-answers", daemon=True).start()
        self._engine: Engine | None = None
        atexit.register(self.close)
        self._wait(self._started())

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """batch: columns of rows, as NumPy arrays. Raises EngineUnavailableError where the engine keeps dying."""
        names = list(batch)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        results = self._wait(self._answered(rows))
        ends = [results[number] for number in range(len(rows))]
        return batch | {
            "response": np.array([_text(end) if end.error_code is None else None for end in ends], dtype=object),
            "error": np.array([_error(end) for end in ends], dtype=object),
            "output_tokens": np.array([end.usage.output for end in ends], dtype=np.int64),
        }

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._wait(self._engine.stop())
            self._engine = None

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _started(self) -> Engine:
        if self._engine is None:
            engine = SglangEngine(self._settings, Path(self._folder.name) / "engine.log")
            try:
                await engine.start(ignore)
            except BaseException:
                await engine.stop()
                raise
            self._engine = engine
        return self._engine

    async def _answered(self, rows: list[dict[str, Any]]) -> dict[int, Result]:
        """The end of each row, by its number in the batch."""
        results: dict[int, Result] = {}
        spoken: dict[int, Spoken] = {}
        made = (self._item(row, number, results, spoken) for number, row in enumerate(rows))
        items = [item for item in made if item]
        for left in range(_RESTARTS, -1, -1):
            try:
                await self._feed([item for item in items if item.row not in results], results)
                return {number: in_own_words(result, spoken.get(number)) for number, result in results.items()}
            except EngineUnavailableError:
                engine, self._engine = self._engine, None
                if engine is not None:
                    await engine.stop()
                if not left:
                    raise
        return results

    async def _feed(self, items: list[WorkItem], results: dict[int, Result]) -> None:
        engine = await self._started()
        for item in items:
            await engine.submit(item)
        await engine.close_input()
        async for result in engine.results():
            results[result.row] = result

    def _item(
        self, row: dict[str, Any], number: int, results: dict[int, Result], spoken: dict[int, Spoken]
    ) -> WorkItem | None:
        """None for a row that is refused, which has its result then. spoken: is told of one in another API's words."""
        try:
            line = parse_line(request_line(row, number, self._to_request), rules=_OF_TABLES)
        except (UsageError, TypeError) as error:
            refusal = LineError(ErrorCode.INVALID_REQUEST, str(error))
        except LineError as error:
            refusal = error
        else:
            if line.spoken is not None:
                spoken[number] = line.spoken
            return WorkItem(number, line.endpoint.url, orjson.dumps(line.body))
        results[number] = Result(number, 400, b"", error_code=str(refusal.code), error_message=refusal.message)
        return None


def _text(result: Result) -> str:
    return result.body.decode()


def _error(result: Result) -> str | None:
    if result.error_code is None:
        return None
    return orjson.dumps({"code": result.error_code, "message": result.error_message}).decode()
