"""One request through SGLang's own OpenAI serving classes, in process. Runs in the engine process only.

Two steps, so that the request can be checked between them: the body is rendered and tokenised by SGLang's code, then
what would end the scheduler (no tokens, ids outside the vocabulary) is refused, then it is generated.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import HTTPException
from pydantic import ValidationError

from blendrun.endpoints.adapters import adapter_of
from blendrun.endpoints.base import ServingPath
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine import sglang_names
from blendrun.engine.answers import asked_of_sglang, completed
from blendrun.engine.base import Result, WorkItem
from blendrun.engine.failure import failure
from blendrun.engine.outcome import answer_of, code_of, result_of
from blendrun.engine.reading import Reading, ReadManager, as_object, told_usage
from blendrun.engine.scheduler.planned import attach_plan
from blendrun.engine.sglang_names import GRAMMAR_DEAD_END, GRAMMARS
from blendrun.engine.token_ids import check_token_ids
from blendrun.errors import ErrorCode, LineError

# Answers are given before the scheduler has put their cache away.
_FLUSH_TIMEOUT_S = 30.0
_NO_WAY_ON = "the answer's form compiles, but comes to a point where it allows no token"
# Names that pydantic puts into the place of an error for the member of a union.
_MEMBER = re.compile(r"[A-Z]\w*$|(?:list|str|int|float|function-\w+|nullable|constrained-\w+|literal)\b.*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request must fit, in tokens. longest_prompt: what SGLang admits, by context and KV pool.

    adapters: their names.
    """

    context_length: int
    longest_prompt: int
    vocabulary: int
    honours_seed: bool
    adapters: tuple[str, ...] = ()


class Serving:
    """All endpoints on one running SGLang engine. model_name: what answers call the model; "" for the line's own."""

    def __init__(self, engine: Any, limits: Limits, model_name: str = "") -> None:
        self._limits, self._model_name = limits, model_name
        self._manager = engine.tokenizer_manager
        self._tokenizer = self._manager.tokenizer
        self._template_manager = engine.template_manager
        self._handlers: dict[ServingPath, tuple[Any, Callable[..., Any]]] = {}
        # One thread: rendering and tokenising must not stall the loop, and must not overtake each other.
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")
        self._reader = ReadManager(self._manager, self._preparing, self._check_prompt)

    async def flush(self) -> bool:
        """Forget the prefix cache, once nothing runs. Returns whether that happened."""
        answer = await self._manager.flush_cache(timeout_s=_FLUSH_TIMEOUT_S)
        return bool(answer.success)

    async def run(self, item: WorkItem) -> Result:
        """The result of one request; every failure of its own is a result too."""
        endpoint, whole = ENDPOINTS[item.url], orjson.loads(item.body)
        path = endpoint.serving_of(whole)
        if path is None:
            message = f"{item.url} is not served by engines of this command: give servers (--engine http://...)"
            return failure(item.row, 400, ErrorCode.INVALID_REQUEST, message)
        answer = self._one if path.decodes else self._read
        outcomes = await asyncio.gather(*(answer(item, body, path) for body in endpoint.parts(whole)))
        answers = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        # What one prompt of a line fails with, the line does.
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Result)), None)
        if failed is not None:
            return failed
        try:
            return result_of(item.row, endpoint, endpoint.joined(whole, answers))
        except LineError as error:
            return failure(item.row, 400, error.code, error.message)

    async def _read(self, item: WorkItem, body: dict[str, Any], path: ServingPath) -> dict[str, Any] | Result:
        """The response to a request that decodes nothing, or to a part of one; or its failure."""
        reading = Reading(item.plan, adapter_of(body, self._limits.adapters))
        try:
            handler, request_class = self._handler(path)
            adapted, request = _converted(handler, request_class, body)
            with reading.under_way():
                response = await handler._handle_non_streaming_request(adapted, request, None)
            if reading.refusal is not None:
                raise reading.refusal
            answer = answer_of(item.row, as_object(response))
            if isinstance(answer, Result):
                return answer
            answer["usage"] = told_usage(reading)
            return completed(answer, body, reading.adapter or self._model_name)
        except LineError as error:
            return failure(item.row, 400, error.code, error.message)
        except (ValueError, TypeError, KeyError) as error:
            return failure(item.row, 400, code_of(str(error)), f"{error}")
        except HTTPException as error:
            code = ErrorCode.REQUEST_TIMEOUT if error.status_code == 503 else ErrorCode.ENGINE_ERROR
            return failure(item.row, error.status_code, code, str(error.detail))
        except Exception as error:  # noqa: BLE001  # one request's failure, whatever it is, must not cost another its answer
            return failure(item.row, 500, ErrorCode.ENGINE_ERROR, f"{type(error).__name__}: {error}")

    def _handler(self, path: ServingPath) -> tuple[Any, Callable[..., Any]]:
        """SGLang's class for some requests, made when the first of them comes: some models cannot have each."""
        found = self._handlers.get(path)
        if found is None:
            arguments = [self._manager if path.decodes else self._reader]
            if path.takes_template:
                arguments.append(self._template_manager)
            found = _resolve(path.serving_class)(*arguments), _resolve(path.request_class)
            self._handlers[path] = found
        return found

    async def _one(self, item: WorkItem, body: dict[str, Any], path: ServingPath) -> dict[str, Any] | Result:
        """The response to one prompt of a request as an object, or its failure."""
        handler, request_class = self._handler(path)
        loop = asyncio.get_running_loop()
        try:
            prepare = partial(self._prepare, item, body, handler, request_class)
            adapted, request = await loop.run_in_executor(self._preparing, prepare)
        except LineError as error:
            return failure(item.row, 400, error.code, error.message)
        except (ValueError, TypeError, KeyError) as error:
            return failure(item.row, 400, code_of(str(error)), f"{error}")
        # Before SGLang makes a list of its parameters, one for each choice.
        bound = any(adapted.sampling_params.get(kind) for kind in GRAMMARS)
        try:
            response = await handler._handle_non_streaming_request(adapted, request, None)
            answer = answer_of(item.row, response)
            if isinstance(answer, Result):
                return answer
            if bound and not sglang_names.tells_dead_ends() and "abort" in ENDPOINTS[item.url].finish_reasons(answer):
                return failure(item.row, 400, ErrorCode.SCHEMA_UNSUPPORTED, _NO_WAY_ON)
            named = adapter_of(body, self._limits.adapters) or self._model_name
            return completed(answer, body, named if ENDPOINTS[item.url].names_model else "")
        except re.error as error:
            return failure(item.row, 400, ErrorCode.INVALID_REQUEST, f"`stop_regex` is no regular expression: {error}")
        except HTTPException as error:
            if GRAMMAR_DEAD_END in str(error.detail):
                return failure(item.row, 400, ErrorCode.SCHEMA_UNSUPPORTED, _NO_WAY_ON)
            code = ErrorCode.REQUEST_TIMEOUT if error.status_code == 503 else ErrorCode.ENGINE_ERROR
            return failure(item.row, error.status_code, code, str(error.detail))
        except Exception as error:  # noqa: BLE001  # one request's failure, whatever it is, must not cost another its answer
            return failure(item.row, 500, ErrorCode.ENGINE_ERROR, f"{type(error).__name__}: {error}")

    def _prepare(
        self, item: WorkItem, given: dict[str, Any], handler: Any, request_class: Callable[..., Any]
    ) -> tuple[Any, Any]:
        """Render, tokenise and check. Raises LineError, or what SGLang's own code raises for a bad request."""
        with _tools_kept(given):
            adapted, request = _converted(handler, request_class, asked_of_sglang(given))
        # SGLang takes whatever follows a colon in `model` for an adapter, and `model` without one for the base.
        adapted.lora_path = adapter_of(given, self._limits.adapters)
        # Fixed width, because SGLang aborts by prefix of the id; with n > 1 it makes its own.
        if adapted.sampling_params.get("n", 1) == 1:
            adapted.rid = uuid.uuid4().hex
        self._check_prompt(adapted)
        self._bound_output(adapted, ENDPOINTS[item.url].demand(given).max_new_tokens)
        check_token_ids(adapted.sampling_params, self._limits.vocabulary)
        self._check_seed(adapted)
        if item.plan is not None:
            attach_plan(adapted, item.plan)
        return adapted, request

    def _check_prompt(self, adapted: Any) -> None:
        """Tokenise a prompt, or several, and refuse what would end the scheduler. Raises LineError."""
        text = adapted.text
        if adapted.input_ids is None and text is not None and not _has_media(adapted):
            if isinstance(text, str):
                adapted.input_ids, adapted.text = self._tokenizer.encode(text), None
            elif isinstance(text[0], str):
                adapted.input_ids, adapted.text = [self._tokenizer.encode(each) for each in text], None
        ids = adapted.input_ids
        if ids is None and isinstance(text, list):
            # Pairs stay texts: SGLang also wants to know which part is which.
            ids = self._tokenizer(text)["input_ids"]
        if ids is None:
            return
        for each in ids if ids and isinstance(ids[0], list) else [ids]:
            self._check_ids(each)

    def _check_ids(self, ids: list[int]) -> None:
        if not ids:
            raise LineError(ErrorCode.INVALID_REQUEST, "the prompt has no tokens")
        if min(ids) < 0 or max(ids) >= self._limits.vocabulary:
            raise LineError(
                ErrorCode.INVALID_REQUEST,
                f"the prompt has a token id outside the model's vocabulary of {self._limits.vocabulary}",
            )
        if len(ids) > self._limits.longest_prompt:
            raise LineError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"the prompt has {len(ids)} tokens; context and KV cache pool of this engine leave room for "
                f"{self._limits.longest_prompt}",
            )

    def _bound_output(self, adapted: Any, asked: int | None) -> None:
        """The smaller of what was asked and what the context leaves; never SGLang's or OpenAI's short defaults."""
        if adapted.input_ids is None:
            return
        left = self._limits.context_length - len(adapted.input_ids)
        adapted.sampling_params["max_new_tokens"] = left if asked is None else min(asked, left)

    def _check_seed(self, adapted: Any) -> None:
        params = adapted.sampling_params
        if params.get("sampling_seed") is None or params.get("temperature") == 0 or self._limits.honours_seed:
            return
        raise LineError(
            ErrorCode.INVALID_REQUEST,
            "`seed` would not be honoured by this engine's sampling backend; remove it, or set temperature 0",
        )


def _has_media(adapted: Any) -> bool:
    return any(getattr(adapted, name, None) for name in ("image_data", "audio_data", "video_data"))


def _converted(handler: Any, request_class: Callable[..., Any], given: dict[str, Any]) -> tuple[Any, Any]:
    """A body as SGLang's engine takes it, and as its API does. Raises LineError, and what SGLang's code raises."""
    # null means "the default" in OpenAI's schema; SGLang's request models take it for some fields only.
    body = {name: value for name, value in given.items() if value is not None}
    try:
        request = request_class(**body)
    except ValidationError as error:
        raise LineError(ErrorCode.INVALID_REQUEST, _plain(error)) from error
    if refusal := handler._validate_request(request):
        raise LineError(ErrorCode.INVALID_REQUEST, refusal)
    converted: tuple[Any, Any] = handler._convert_to_internal_request(request, None)
    return converted


def _resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@contextmanager
def _tools_kept(body: dict[str, Any]) -> Iterator[None]:
    """A call that must come keeps its tool's schema, `strict` or not, as everywhere else but in SGLang.

    Only the thread that prepares requests reads the level.
    """
    choice, strictest = body.get("tool_choice"), sglang_names.strictest_tools()
    if strictest is None or (choice != "required" and not isinstance(choice, dict)):
        yield
        return
    name, level = strictest
    before = os.environ.get(name)
    os.environ[name] = level
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _plain(error: ValidationError) -> str:
    """What a request model says of a bad request, with the place in the body; of a union, its closest member's word."""
    found = error.errors(include_url=False, include_input=False)
    # The member that gets furthest is the one that was meant.
    deepest = max(found, key=lambda each: (len(each["loc"]), each["type"] != "literal_error"))
    place = ".".join(str(part) for part in deepest["loc"] if not (isinstance(part, str) and _MEMBER.match(part)))
    said: str = deepest["msg"].removeprefix("Value error, ")
    # What is wrong with several fields together has no place.
    return f"`{place}`: {said}" if place else said
