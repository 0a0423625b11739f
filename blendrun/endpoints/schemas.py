"""What a JSON schema or a pattern says and the grammar compiler does not keep, by name.

XGrammar 0.2 compiles some of it and passes over the rest in silence, so that an answer breaks the schema and counts as
kept. What it refuses itself, and what SGLang refuses for it (constrained/json_schema_validation.py), is left to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

from blendrun.errors import ErrorCode, LineError

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("$defs", "definitions", "patternProperties", "properties")
_SINGLE = ("additionalProperties", "items", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
# Of older drafts, or followed nowhere.
_UNKNOWN = ("dependencies", "$dynamicRef", "$recursiveRef", "disallow", "divisibleBy", "extends")
_OF_STRINGS = ("pattern", "format", "minLength", "maxLength")
_OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_OBJECTS = (
    *("properties", "required", "minProperties", "maxProperties", "patternProperties", "propertyNames"),
    *("additionalProperties", "unevaluatedProperties"),
)
_OF_ARRAYS = ("items", "prefixItems", "minItems", "maxItems", "unevaluatedItems")
_ASSERTIONS = (*_OF_STRINGS, *_OF_NUMBERS, *_OF_OBJECTS, *_OF_ARRAYS, "enum", "const")
_TELL_TYPE = ("properties", "additionalProperties", "patternProperties", "items", "prefixItems")
# What SGLang refuses of a `response_format` by itself (constrained/json_schema_validation.py), and of a tool does not.
_REFUSED_ELSEWHERE = (
    *("contains", "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "minContains"),
    *("multipleOf", "not", "then", "uniqueItems"),
)
# One of these is all that the compiler looks at.
_ALONE = ("$ref", "anyOf", "oneOf", "allOf")
# By the two characters that open it.
_GROUPS = {
    "(?=": "lookahead",
    "(?!": "lookahead",
    "(?<=": "lookbehind",
    "(?<!": "lookbehind",
    "(?P=": "a backreference",
}
_ESCAPES = {
    **dict.fromkeys("123456789k", "a backreference"),
    **dict.fromkeys("bB", "a word boundary"),
    **dict.fromkeys("AZzG", "an anchor other than ^ and $"),
    **dict.fromkeys("pP", "a Unicode class"),
    **dict.fromkeys("hHRKXQEcayi0", "this escape"),
}
_FLAG = re.compile(r"\(\?[aiLmsux-]")
_BEFORE_START = re.compile(r"(?:\((?:\?:|\?P?<\w+>)?)*")


def check_schema(schema: Any, place: str, *, of_tool: bool = False) -> None:
    """Raises LineError `schema_unsupported` for what an answer would not keep. place: of the schema in its body.

    of_tool: whether it is that of a tool's arguments, which nobody looks at behind this.
    """
    try:
        found = _unkept(orjson.dumps(schema), of_tool)
    except RecursionError:
        found = "it is nested too deeply"
    if found is not None:
        raise LineError(ErrorCode.SCHEMA_UNSUPPORTED, f"`{place}`: {found}")


def check_pattern(pattern: str, place: str) -> None:
    """The same of a regular expression that is the whole answer's."""
    if (found := _unkept_in_pattern(pattern)) is not None:
        raise LineError(ErrorCode.SCHEMA_UNSUPPORTED, f"`{place}`: {found} is not kept by the grammar compiler")


# Jobs have few schemas; the bound keeps one with a schema a line from filling the memory.
@lru_cache(maxsize=1024)
def _unkept(text: bytes, of_tool: bool) -> str | None:
    """The first thing in a schema that is not kept, as a clause; None where all is."""
    for schema, pointer in _subschemas(orjson.loads(text), "#"):
        refused = (name for name in _REFUSED_ELSEWHERE if of_tool and schema.get(name, False) is not False)
        if (name := next(refused, None)) is not None:
            return f"at {pointer}: `{name}` would not be kept by the grammar compiler"
        if (found := _unkept_here(schema)) is not None:
            return f"at {pointer}: {found} would not be kept by the grammar compiler"
    return None


def _unkept_here(schema: dict[str, Any]) -> str | None:
    patterns = [schema.get("pattern"), *_keys(schema.get("patternProperties"))]
    for pattern in patterns:
        if isinstance(pattern, str) and (found := _unkept_in_pattern(pattern)) is not None:
            return f"{found} in the pattern {pattern[:60]!r}"
    for name in _UNKNOWN:
        if name in schema:
            return f"`{name}`"
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
        return f"a `$ref` to {reference[:60]!r} (only #/... is followed)"
    for alone in _ALONE:
        if alone in schema and (beside := [name for name in _ASSERTIONS if name in schema]):
            return f"`{beside[0]}` beside `{alone}`"
    if isinstance(every := schema.get("allOf"), list) and len(every) > 1:
        return "`allOf` of several"
    return _without_type(schema) or _undeclared(schema)


def _without_type(schema: dict[str, Any]) -> str | None:
    """What the compiler looks at only where a type, or a field that tells one, says what it is of."""
    if any(name in schema for name in ("type", "enum", "const", *_ALONE, *_TELL_TYPE)):
        return None
    loose = [name for name in _ASSERTIONS if name in schema]
    return f"`{loose[0]}` without a `type`" if loose else None


def _undeclared(schema: dict[str, Any]) -> str | None:
    """Properties that must be there and that the grammar has no place for."""
    declared, required = schema.get("properties"), schema.get("required")
    if not isinstance(required, list) or any(name in schema for name in ("enum", "const", *_ALONE)):
        return None
    missing = [name for name in required if name not in (declared if isinstance(declared, dict) else {})]
    return f"`required` {missing[0]!r:.60} without a place among the `properties`" if missing else None


def _unkept_in_pattern(pattern: str) -> str | None:
    """The first construct of a regular expression that the compiler passes over or takes for something else."""
    place, end, branch, in_class = 0, len(pattern), 0, False
    while place < end:
        character = pattern[place]
        if character == "\\":
            if place + 1 < end and not in_class and (found := _ESCAPES.get(pattern[place + 1])):
                return f"{found} (`{pattern[place : place + 2]}`)"
            place += 2
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            for opening, found in _GROUPS.items():
                if pattern.startswith(opening, place):
                    return f"{found} (`{opening}`)"
            if flag := _FLAG.match(pattern, place):
                return f"a flag (`{flag[0]}`)"
        elif character == "|":
            branch = place + 1
        elif character == "^" and not _BEFORE_START.fullmatch(pattern, branch, place):
            return "`^` inside a pattern"
        elif character == "$" and pattern[place + 1 :].lstrip(")")[:1] not in ("", "|"):
            return "`$` inside a pattern"
        place += 1
    return None


def _subschemas(schema: Any, pointer: str) -> Iterator[tuple[dict[str, Any], str]]:
    if not isinstance(schema, dict):
        return
    yield schema, pointer
    for name in _SINGLE:
        yield from _subschemas(schema.get(name), f"{pointer}/{name}")
    for name in _LISTS:
        children = schema.get(name)
        for number, child in enumerate(children if isinstance(children, list) else ()):
            yield from _subschemas(child, f"{pointer}/{name}/{number}")
    for name in _MAPS:
        children = schema.get(name)
        for key, child in children.items() if isinstance(children, dict) else ():
            yield from _subschemas(child, f"{pointer}/{name}/{key[:60]}")


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []
