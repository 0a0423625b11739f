"""What a request was promised of its answer (a schema, a forced tool call), and whether an answer keeps it.

The grammar of an engine keeps most of it; a server may keep nothing, a token limit cuts an answer short, and some of
what a schema says no grammar keeps.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

# Answers that are longer are not checked: a schema may cost any time on them.
_MOST_CHARACTERS = 4 << 20
_SHOWN_CHARACTERS = 200
# What the arguments of any call are.
_ANY_OBJECT = b'{"type":"object"}'


@dataclass(frozen=True, slots=True)
class Promise:
    """schema: JSON text of the answer's schema, `{}` for any JSON; None where a tool is to be called instead.

    tools: JSON texts of the parameters' schemas by name, of tools whose calls must keep them; the arguments of others
    are any JSON object. forced: names of which one must be called; () where none must. parallel: whether several calls
    may come.
    """

    schema: bytes | None = None
    tools: tuple[tuple[str, bytes], ...] = ()
    forced: tuple[str, ...] = ()
    parallel: bool = True

    def broken_by(self, body: dict[str, Any]) -> str | None:
        """Why a response's body does not keep it, as a sentence; None where it does, or cannot be judged."""
        choices = body.get("choices")
        for number, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                continue
            if (reason := self._reason(choice)) is not None:
                return reason if number == 0 else f"choice {number}: {reason}"
        return None

    def _reason(self, choice: dict[str, Any]) -> str | None:
        reason = self._of_calls(choice) if self.schema is None else self._of_text(choice, self.schema)
        if reason is not None and choice.get("finish_reason") == "length":
            return f"it was cut short at its token limit: {reason}"
        return reason

    def _of_text(self, choice: dict[str, Any], schema: bytes) -> str | None:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else choice.get("text")
        if isinstance(message, dict) and not text and message.get("tool_calls"):
            # A tool was called in place of an answer, which is allowed.
            return None
        return _broken(text, schema, "the answer")

    def _of_calls(self, choice: dict[str, Any]) -> str | None:
        message = choice.get("message")
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        calls = [each for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
        if not calls:
            return "no tool was called" if self.forced else None
        if len(calls) > 1 and not self.parallel:
            return f"{len(calls)} tools were called at once"
        schemas = dict(self.tools)
        for call in calls:
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            name = function.get("name")
            if self.forced and name not in self.forced:
                return f"the tool {str(name)[:60]!r} was called, which was not asked for"
            schema = schemas.get(str(name), _ANY_OBJECT)
            if reason := _broken(function.get("arguments"), schema, f"call of {str(name)[:60]}"):
                return reason
        return None


def promise_of(body: dict[str, Any]) -> Promise | None:
    """What the answer to a valid body must be; None where it may be anything."""
    wanted = body.get("response_format")
    wanted = wanted if isinstance(wanted, dict) else {}
    if wanted.get("type") == "json_object":
        return Promise(schema=b'{"type":"object"}')
    if wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        return Promise(schema=orjson.dumps(schema)) if isinstance(schema, dict) else None
    return _promise_of_tools(body)


def _promise_of_tools(body: dict[str, Any]) -> Promise | None:
    choice, tools = body.get("tool_choice"), _functions(body.get("tools"))
    if not tools or choice == "none":
        return None
    names = tuple(tool["name"] for tool in tools)
    if isinstance(choice, dict):
        function = choice.get("function")
        names = tuple(name for name in names if isinstance(function, dict) and name == function.get("name"))
    forced = names if choice == "required" or isinstance(choice, dict) else ()
    kept = [tool for tool in tools if tool["name"] in forced or tool.get("strict") is True]
    parallel = body.get("parallel_tool_calls") is not False
    schemas = tuple((tool["name"], orjson.dumps(tool.get("parameters") or {"type": "object"})) for tool in kept)
    return Promise(tools=schemas, forced=forced, parallel=parallel)


def _functions(tools: Any) -> list[dict[str, Any]]:
    found = [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [each for each in found if isinstance(each, dict) and isinstance(each.get("name"), str)]


def _broken(text: Any, schema: bytes, what: str) -> str | None:
    if not isinstance(text, str):
        return f"{what} is empty"
    if len(text) > _MOST_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"{what} is no JSON: {str(error)[:_SHOWN_CHARACTERS]}"
    validator = _validator(schema)
    if validator is None:
        return None
    try:
        broken = next(iter(validator.iter_errors(value)), None)
    except Exception:  # noqa: BLE001  # a schema that cannot be followed says nothing of the answer
        return None
    if broken is None:
        return None
    place = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in broken.absolute_path)
    return f"{what}{place[:60]}: {broken.message[:_SHOWN_CHARACTERS]}"


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Validator | None:
    """What checks values; None for a schema that is none. It opens no address that the schema names."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for
    from referencing import Registry

    given = orjson.loads(schema)
    kind: Any = validator_for(given, default=Draft202012Validator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind.check_schema(given)
        except Exception:  # noqa: BLE001  # it raises more than its own errors
            return None
    limited: Any = extend(  # type: ignore[no-untyped-call]  # it has no types of its own
        kind, {"pattern": _limited(kind, "pattern"), "patternProperties": _limited_names(kind)}
    )
    registry: Registry[Any] = Registry()
    checker: Validator = limited(given, registry=registry)
    return checker


def _limited(kind: Any, name: str) -> Any:
    original = kind.VALIDATORS.get(name)

    def check(validator: Any, pattern: Any, instance: Any, schema: Any) -> Any:
        return original(validator, pattern, instance, schema) if _takes_little_time(pattern) else ()

    return check


def _limited_names(kind: Any) -> Any:
    original = kind.VALIDATORS.get("patternProperties")

    def check(validator: Any, patterns: Any, instance: Any, schema: Any) -> Any:
        few = {pattern: each for pattern, each in patterns.items() if _takes_little_time(pattern)}
        return original(validator, few, instance, schema)

    return check


@lru_cache(maxsize=1024)
def _takes_little_time(pattern: str) -> bool:
    """Whether Python's search cannot take exponential time: no repetition without an end has a choice inside it."""
    from re import _parser  # type: ignore[attr-defined]  # the only reader of patterns that there is

    try:
        re.compile(pattern)
        return not _may_explode(_parser.parse(pattern), inside=False)
    except (re.error, RecursionError, OverflowError):
        return False


def _may_explode(parsed: Any, *, inside: bool) -> bool:
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, body = argument
            if inside and low != high:
                return True
            if _may_explode(body, inside=inside or high > max(low, 1) + 64):
                return True
        elif name == "SUBPATTERN":
            if _may_explode(argument[3], inside=inside):
                return True
        elif name == "BRANCH":
            if inside or any(_may_explode(each, inside=False) for each in argument[1]):
                return True
        elif name in ("GROUPREF", "GROUPREF_EXISTS", "ASSERT", "ASSERT_NOT", "ATOMIC_GROUP") and inside:
            return True
    return False
