"""Which LoRA adapter a request line asks for, and the names of models that lines give."""

from __future__ import annotations

from collections import Counter
from typing import Any

from blendrun.endpoints.base import refuse
from blendrun.errors import UsageError

_NAMES_SHOWN = 5


def declared_adapters(lora_paths: object) -> tuple[str, ...]:
    """Names in SGLang's argument `lora_paths`. Raises UsageError as `adapter_paths`."""
    return tuple(adapter_paths(lora_paths))


def adapter_paths(lora_paths: object) -> dict[str, str]:
    """By name, where each lies: of a mapping, or a list of NAME=PATH, PATH or {lora_name, lora_path}, as SGLang takes.

    Raises UsageError for anything else.
    """
    if lora_paths is None:
        return {}
    if isinstance(lora_paths, dict):
        pairs = list(lora_paths.items())
    else:
        pairs = [_pair(entry) for entry in lora_paths] if isinstance(lora_paths, list) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(path, str) and name and path for name, path in pairs):
        raise UsageError(
            '--engine-arg lora_paths takes a list such as ["sql=/adapters/sql"] or a mapping of names to paths'
        )
    return dict(pairs)


def _pair(entry: object) -> tuple[Any, Any]:
    if isinstance(entry, dict):
        return entry.get("lora_name"), entry.get("lora_path")
    if not isinstance(entry, str):
        return None, None
    name, _, path = entry.partition("=")
    return name, path or name


def adapter_of(body: dict[str, Any], adapters: tuple[str, ...] | None) -> str | None:
    """The declared adapter that a valid body runs on: `model` as NAME or BASE:NAME, else `lora_path`.

    Where nobody knows which are declared (None), one is what follows a colon in `model`, else `lora_path`.
    """
    model = body.get("model")
    if adapters is None:
        named = model.partition(":")[2].strip() if isinstance(model, str) else ""
        given = named or body.get("lora_path")
        return given if isinstance(given, str) and given else None
    if isinstance(model, str):
        for name in adapters:
            if model == name or model.endswith(f":{name}"):
                return name
    given = body.get("lora_path")
    return given if given in adapters else None


def check_adapter(body: dict[str, Any], adapters: tuple[str, ...], base: tuple[str, ...]) -> None:
    """Refuse a name that is not served. base: names of the loaded model. Raises LineError.

    Where no adapter is declared any `model` runs on the loaded model; where one is, a slip of the pen must not.
    """
    given, model = body.get("lora_path"), body.get("model")
    if given is not None and not isinstance(given, str):
        raise refuse("`lora_path` must be a string: one adapter a line")
    if given and given not in adapters:
        raise refuse(f"`lora_path`: there is no adapter {given[:80]!r}; {_served(adapters, base)}")
    if not adapters or not model or model in base:
        return
    named = adapter_of({"model": model}, adapters)
    if named is None or (model != named and model.removesuffix(f":{named}") not in base):
        raise refuse(f"`model`: {model[:80]!r} is not served; {_served(adapters, base)}")
    if given and given != named:
        raise refuse(f"`model` names the adapter {named!r} and `lora_path` names {given!r}; leave one out")


def other_models(names: Counter[str], loaded: str, base: tuple[str, ...]) -> str | None:
    """A sentence where lines name other models than the loaded one. names: how many lines give each."""
    foreign = Counter({name: count for name, count in names.items() if name not in (loaded, "default", *base)})
    if not foreign:
        return None
    most = ", ".join(f"{name[:80]} ({count:,})" for name, count in foreign.most_common(_NAMES_SHOWN))
    more = ", …" if len(foreign) > _NAMES_SHOWN else ""
    who = (
        "1 line names another model and runs"
        if foreign.total() == 1
        else f"{foreign.total():,} lines name another model and run"
    )
    return f"{who} on {loaded} all the same: {most}{more}"


def _served(adapters: tuple[str, ...], base: tuple[str, ...]) -> str:
    if not adapters:
        return "this run declares none (--engine-arg lora_paths=…)"
    return f"served are {', '.join(dict.fromkeys((*base, *adapters)))}"
