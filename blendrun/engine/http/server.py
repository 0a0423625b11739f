"""What a server says of itself: SGLang, vLLM and llama.cpp each at an address of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from blendrun.engine.http.settings import KEY_VARIABLE
from blendrun.errors import EngineUnavailableError

if TYPE_CHECKING:
    import httpx

_SECONDS = 10.0
# Names in the field `owned_by` of /v1/models.
_KINDS = {"sglang": "sglang", "vllm": "vllm", "llamacpp": "llama.cpp"}
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
# Tokens; vLLM takes 16 on a GPU.
_LARGE_BLOCK = 32
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class ServerAwayError(Exception):
    """It does not answer, or not yet; the message says how."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is known of a server; None where it does not tell.

    kind: sglang, vllm, llama.cpp or openai. models: names that it serves, the base model first. context_length,
    kv_tokens: tokens. max_running: requests decoded at once. chunk: prefill tokens of a step. tensor, stages: ranks of
    tensor and of pipeline parallelism. mixes: whether prefill and decode share its steps. notes: what a person should
    know.
    """

    kind: str
    models: tuple[str, ...]
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
        context_length=_number(first.get("max_model_len")),
    )
    if info.kind == "sglang":
        return _of_sglang(info, await _json(client, "/server_info"))
    if info.kind == "vllm":
        version = (await _json(client, "/version")).get("version")
        return _of_vllm(replace(info, version=version, mixes=True), await _text(client, "/metrics"))
    if info.kind == "llama.cpp":
        return _of_llama_cpp(info, await _json(client, "/props"))
    return info


async def _models(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Entries of /v1/models: at least one."""
    import httpx

    try:
        answer = await client.get("/v1/models", timeout=_SECONDS)
    except httpx.TransportError as error:
        raise ServerAwayError(reason_of(error)) from error
    where = f"{client.base_url}v1/models"
    if answer.status_code in (401, 403):
        raise refused(client, answer.status_code)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise ServerAwayError(f"HTTP {answer.status_code}")
    if answer.status_code != 200:
        raise EngineUnavailableError(f"{where} answers HTTP {answer.status_code}: is that a server with OpenAI's API?")
    try:
        listed = [{**each, "id": str(each["id"])} for each in orjson.loads(answer.content)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise EngineUnavailableError(f"{where} does not list models: is that a server with OpenAI's API?") from error
    if not listed:
        raise ServerAwayError("it serves no model yet")
    return listed


def refused(client: httpx.AsyncClient, status: int) -> EngineUnavailableError:
    """A server that wants another key, or one at all."""
    return EngineUnavailableError(
        f"{client.base_url} refuses access (HTTP {status}): put its key in {KEY_VARIABLE}", machine_lost=True
    )


def reason_of(error: Exception) -> str:
    """One clause of what a failed exchange was; some of httpx's errors say nothing themselves."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _of_sglang(info: ServerInfo, told: dict[str, Any]) -> ServerInfo:
    notes = []
    if told.get("enable_cache_report") is False:
        notes.append("it reports no cached tokens: start it with --enable-cache-report")
    policy = told.get("schedule_policy", "fcfs")
    if policy != "fcfs":
        notes.append(f"it orders what waits by {policy}: start it with --schedule-policy fcfs to keep the plan's order")
    # One of each data-parallel rank.
    ranks = [_number(each.get("effective_max_running_requests_per_dp")) for each in told.get("internal_states") or ()]
    return replace(
        info,
        version=told.get("version"),
        context_length=_number(told.get("context_length")) or info.context_length,
        kv_tokens=_number(told.get("max_total_num_tokens")) or _number(told.get("max_total_tokens")),
        max_running=sum(each or 0 for each in ranks) or _number(told.get("max_running_requests")),
        chunk=_number(told.get("chunked_prefill_size")),
        tensor=_number(told.get("tp_size")),
        stages=_number(told.get("pp_size")),
        mixes=bool(told.get("enable_mixed_chunk")),
        notes=tuple(notes),
    )


def _of_vllm(info: ServerInfo, metrics: str) -> ServerInfo:
    found = _CACHE_CONFIG.search(metrics)
    labels = dict(_LABEL.findall(found.group(1))) if found else {}
    blocks, size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    kv_tokens = _number(labels.get("kv_cache_size_tokens")) or (blocks * size if blocks and size else None)
    notes = []
    if labels.get("enable_prefix_caching") == "False":
        notes.append("its prefix cache is off: start it with --enable-prefix-caching")
    elif size is not None and size > _LARGE_BLOCK:
        notes.append(f"its cache shares whole blocks of {size} tokens: shorter prefixes gain nothing (--block-size)")
    return replace(info, kv_tokens=kv_tokens, notes=tuple(notes))


def _of_llama_cpp(info: ServerInfo, told: dict[str, Any]) -> ServerInfo:
    slots = _number(told.get("total_slots"))
    context = _number((told.get("default_generation_settings") or {}).get("n_ctx"))
    return replace(
        info,
        version=told.get("build_info"),
        context_length=context,
        max_running=slots,
        # Each slot has a cache of its own.
        kv_tokens=slots * context if slots and context else None,
        mixes=True,
    )


async def _json(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What the server says there; nothing where it says nothing that can be read."""
    try:
        told = orjson.loads(await _text(client, path))
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


async def _text(client: httpx.AsyncClient, path: str) -> str:
    import httpx

    try:
        answer = await client.get(path, timeout=_SECONDS)
    except httpx.TransportError:
        return ""
    return answer.text if answer.status_code == 200 else ""


def _number(value: object) -> int | None:
    """A whole number above 0, also where it is written as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
