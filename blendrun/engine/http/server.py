"""What a server says of itself: SGLang, vLLM and llama.cpp each at an address of their own."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from blendrun.engine.http.exchange import UnreadableReplyError, asked
from blendrun.engine.http.settings import KEY_VARIABLE
from blendrun.errors import EngineUnavailableError
from blendrun.text import cut, printable

if TYPE_CHECKING:
    import httpx

_SECONDS = 10.0
# Names in the field `owned_by` of /v1/models.
_KINDS = {"sglang": "sglang", "vllm": "vllm", "llamacpp": "llama.cpp"}
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
# Tokens; vLLM takes 16 on a GPU.
_LARGE_BLOCK = 32
_LABEL = re.compile(r'\b(\w{1,64})="([^"]*)"')
# Of pages that a server says something of itself on, of its metrics, and of the line in which vLLM says how large its
# pool is: bytes.
_PAGE_BYTES, _METRICS_BYTES, _LABELS_BYTES = 4 << 20, 16 << 20, 1 << 16
# What is believed of a server: so many models with names of so many characters, and no number beyond 31 bits.
_MOST_MODELS, _LONGEST_NAME, _LONGEST_VERSION = 1000, 512, 80
_MOST, _MOST_DIGITS = 2**31 - 1, 10
_LONGEST_REASON = 300


class ServerAwayError(Exception):
    """It does not answer, or not yet; the message says how."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is known of a server; None where it does not tell.

    kind: sglang, vllm, llama.cpp or openai. models: names that it serves, the base model first; adapters: those of them
    that are some. context_length, kv_tokens: tokens. max_running: requests decoded at once. chunk: prefill tokens of a
    step. tensor, stages: ranks of tensor and of pipeline parallelism. mixes: whether prefill and decode share its
    steps. notes: what a person should know.
    """

    kind: str
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    version: str | None = None
    context_length: int | None = None
    kv_tokens: int | None = None
    max_running: int | None = None
    chunk: int | None = None
    tensor: int | None = None
    stages: int | None = None
    mixes: bool = False
    notes: tuple[str, ...] = ()


async def look(client: httpx.AsyncClient) -> ServerInfo:
    """Ask the server that the client is for. Raises ServerAwayError, EngineUnavailableError where waiting is no use."""
    listed = await _models(client)
    first = listed[0]
    info = ServerInfo(
        kind=_KINDS.get(str(first.get("owned_by")), "openai"),
        # SGLang lists adapters behind the model that they belong to.
        models=tuple(each["id"] for each in listed),
        adapters=tuple(each["id"] for each in listed if isinstance(each.get("parent"), str)),
        context_length=_number(first.get("max_model_len")),
    )
    if info.kind == "sglang":
        return _of_sglang(info, await _json(client, "/server_info"))
    if info.kind == "vllm":
        version = _word((await _json(client, "/version")).get("version"))
        return _of_vllm(replace(info, version=version, mixes=True), await _text(client, "/metrics", _METRICS_BYTES))
    if info.kind == "llama.cpp":
        return _of_llama_cpp(info, await _json(client, "/props"))
    return info


async def _models(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Entries of /v1/models: at least one."""
    import httpx

    where = f"{client.base_url}v1/models"
    try:
        status, content = await _page(client, "/v1/models")
    except TimeoutError as error:
        raise ServerAwayError(f"no answer within {_SECONDS:g} s") from error
    except httpx.HTTPError as error:
        raise ServerAwayError(reason_of(error)) from error
    except UnreadableReplyError as error:
        raise EngineUnavailableError(f"{where} does not list models: it gives {error}") from error
    if status in (401, 403):
        raise refused(client, status)
    if status == 429 or status >= 500:
        raise ServerAwayError(f"HTTP {status}")
    if status != 200:
        raise EngineUnavailableError(f"{where} answers HTTP {status}: is that a server with OpenAI's API?")
    listed = _listed(content)
    if listed is None:
        raise EngineUnavailableError(f"{where} does not list models: is that a server with OpenAI's API?")
    if not listed:
        raise ServerAwayError("it serves no model yet")
    return listed


def _listed(content: bytes) -> list[dict[str, Any]] | None:
    """Entries of a list of models; None where it is none."""
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    entries = told.get("data") if isinstance(told, dict) else None
    if not isinstance(entries, list) or not all(isinstance(each, dict) and "id" in each for each in entries):
        return None
    named = [{**each, "id": str(each["id"])} for each in entries[:_MOST_MODELS]]
    # None of these was ever a model's name; it would be sent with every request.
    return [each for each in named if 0 < len(each["id"]) <= _LONGEST_NAME] if named else []


def refused(client: httpx.AsyncClient, status: int) -> EngineUnavailableError:
    """A server that wants another key, or one at all."""
    return EngineUnavailableError(
        f"{client.base_url} refuses access (HTTP {status}): put its key in {KEY_VARIABLE}", machine_lost=True
    )


def reason_of(error: Exception) -> str:
    """One clause of what a failed exchange was; some of httpx's errors say nothing themselves."""
    said = printable(cut(str(error), _LONGEST_REASON))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _of_sglang(info: ServerInfo, told: dict[str, Any]) -> ServerInfo:
    notes = []
    if told.get("enable_cache_report") is False:
        notes.append("it reports no cached tokens: start it with --enable-cache-report")
    policy = _word(told.get("schedule_policy", "fcfs"))
    if policy not in ("fcfs", None):
        notes.append(f"it orders what waits by {policy}: start it with --schedule-policy fcfs to keep the plan's order")
    # One of each data-parallel rank.
    ranks = [_number(each.get("effective_max_running_requests_per_dp")) for each in _objects(told, "internal_states")]
    return replace(
        info,
        version=_word(told.get("version")),
        context_length=_number(told.get("context_length")) or info.context_length,
        kv_tokens=_number(told.get("max_total_num_tokens")) or _number(told.get("max_total_tokens")),
        max_running=_number(sum(each or 0 for each in ranks)) or _number(told.get("max_running_requests")),
        chunk=_number(told.get("chunked_prefill_size")),
        tensor=_number(told.get("tp_size")),
        stages=_number(told.get("pp_size")),
        mixes=bool(told.get("enable_mixed_chunk")),
        notes=tuple(notes),
    )


def _of_vllm(info: ServerInfo, metrics: str) -> ServerInfo:
    found = _CACHE_CONFIG.search(metrics)
    labels = dict(_LABEL.findall(found.group(1)[:_LABELS_BYTES])) if found else {}
    blocks, size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    kv_tokens = _number(labels.get("kv_cache_size_tokens")) or _number(blocks * size if blocks and size else None)
    notes = []
    if labels.get("enable_prefix_caching") == "False":
        notes.append("its prefix cache is off: start it with --enable-prefix-caching")
    elif size is not None and size > _LARGE_BLOCK:
        notes.append(f"its cache shares whole blocks of {size} tokens: shorter prefixes gain nothing (--block-size)")
    return replace(info, kv_tokens=kv_tokens, notes=tuple(notes))


def _of_llama_cpp(info: ServerInfo, told: dict[str, Any]) -> ServerInfo:
    slots = _number(told.get("total_slots"))
    settings = told.get("default_generation_settings")
    context = _number(settings.get("n_ctx")) if isinstance(settings, dict) else None
    return replace(
        info,
        version=_word(told.get("build_info")),
        context_length=context,
        max_running=slots,
        # Each slot has a cache of its own.
        kv_tokens=_number(slots * context) if slots and context else None,
        mixes=True,
    )


async def _json(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What the server says there; nothing where it says nothing that can be read."""
    try:
        told = orjson.loads(await _text(client, path))
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


async def _text(client: httpx.AsyncClient, path: str, most: int = _PAGE_BYTES) -> str:
    """A page; nothing where there is none that can be read."""
    import httpx

    try:
        status, content = await _page(client, path, most)
    except (TimeoutError, UnreadableReplyError, httpx.HTTPError):
        return ""
    return content.decode("utf-8", "replace") if status == 200 else ""


async def _page(client: httpx.AsyncClient, path: str, most: int = _PAGE_BYTES) -> tuple[int, bytes]:
    """Status and content. Raises TimeoutError, UnreadableReplyError, httpx.HTTPError."""
    async with asyncio.timeout(_SECONDS), asked(client, "GET", path) as reply:
        return reply.status, await reply.content(most)


def _objects(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What of a list is an object."""
    value = told.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _word(value: object) -> str | None:
    """A short text, to be shown."""
    return printable(cut(value, _LONGEST_VERSION)) if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    """A whole number above 0 of at most 31 bits, also where it is written as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST else None
