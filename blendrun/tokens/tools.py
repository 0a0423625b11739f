"""Tool definitions as SGLang shows them to a chat template (0.5.23: protocol.py:Tool, function_call/utils.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blendrun.tokens.template import RenderError

_STANDARD_TYPES = frozenset(("null", "boolean", "object", "array", "number", "string", "integer"))
# What databases and Python call their types, and the JSON Schema type that SGLang puts in their place.
_ALIASES = {
    **dict.fromkeys(("str", "text", "varchar", "char", "enum", "uuid", "date", "datetime", "time"), "string"),
    **dict.fromkeys(("timestamp", "binary", "blob", "bytea", "bytes", "varbinary"), "string"),
    "bool": "boolean",
    **dict.fromkeys(("bigint", "smallint", "tinyint"), "integer"),
    **dict.fromkeys(("double", "decimal", "real", "numeric"), "number"),
    **dict.fromkeys(("arr", "tuple", "set"), "array"),
    "map": "object",
}
# A prefix counts where the word ends there or goes on as int32, list[str] or int(11) do.
_PREFIXES = (
    (("int", "uint", "long", "short", "unsigned"), "integer"),
    (("num", "float"), "number"),
    (("list",), "array"),
    (("dict",), "object"),
)
_AFTER_PREFIX = "0123456789[<( \t"
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NESTED_SCHEMAS = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)


def template_tools(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """OpenAI tool definitions with the keys, order and defaults that SGLang's request model gives them.

    Raises RenderError.
    """
    return [_tool(tool) for tool in tools]


def chosen_tools(tools: list[Any], choice: Any, *, elsewhere: bool) -> list[Any] | None:
    """The tools of a body that its template sees under its `tool_choice`, or None. Raises RenderError.

    elsewhere: whether a message brings tools of its own, which the message itself shows.
    """
    if choice is None:
        choice = "auto" if tools or elsewhere else "none"
    if choice == "none" or not (tools or elsewhere):
        return None
    if isinstance(choice, dict):
        name = _mapping(choice.get("function"), "tool_choice.function").get("name")
        tools = [tool for tool in tools if _function(tool).get("name") == name]
    return tools or None


def standard_types(schema: Any) -> Any:
    """A copy of a JSON Schema with SGLang's names for types that the standard does not know."""
    if isinstance(schema, list):
        return [standard_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key, value in schema.items():
        if key == "type":
            result[key] = _types(value)
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            result[key] = {name: standard_types(nested) for name, nested in value.items()}
        elif (key in _LISTED_SCHEMAS and isinstance(value, list)) or key in _NESTED_SCHEMAS:
            result[key] = standard_types(value)
    return result


def _types(value: Any) -> Any:
    if not isinstance(value, list):
        return _type(value)
    distinct: list[Any] = []
    for item in map(_type, value):
        if item not in distinct:
            distinct.append(item)
    return distinct


def _type(name: Any) -> Any:
    if not isinstance(name, str) or name in _STANDARD_TYPES:
        return name
    base = name.split("(", 1)[0].strip().lower()
    if base in _STANDARD_TYPES:
        return base
    if base in _ALIASES:
        return _ALIASES[base]
    for prefixes, target in _PREFIXES:
        for prefix in prefixes:
            if base.startswith(prefix) and (base == prefix or base[len(prefix)] in _AFTER_PREFIX):
                return target
    return name


def _tool(tool: Any) -> dict[str, Any]:
    given = _function(tool)
    if not isinstance(given.get("name"), str):
        raise RenderError("`tools[].function.name` must be a string")
    deferred = tool.get("defer_loading")
    fields = {
        "description": given.get("description"),
        "name": given["name"],
        "parameters": standard_types(given.get("parameters")),
        "strict": given.get("strict"),
        "defer_loading": deferred if given.get("defer_loading") is None else given["defer_loading"],
    }
    shown = {
        name: value for name, value in fields.items() if value is not None or name in ("description", "parameters")
    }
    # As the user ordered them; description and parameters that were left out come last, as null.
    order = [name for name in given if name in shown] + [name for name in shown if name not in given]
    function = {name: shown[name] for name in order}
    return {"type": tool.get("type", "function"), "function": function, "defer_loading": deferred}


def _function(tool: Any) -> dict[str, Any]:
    return _mapping(_mapping(tool, "tools[]").get("function"), "tools[].function")


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RenderError(f"`{name}` must be an object")
    return value
