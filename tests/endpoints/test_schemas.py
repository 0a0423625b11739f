"""What a schema or pattern says and no grammar keeps: by name, and against the compiler itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blendrun.endpoints.rules import Rules
from blendrun.endpoints.schemas import check_pattern, check_schema
from blendrun.errors import ErrorCode, LineError


def refusal(schema: dict[str, Any]) -> str:
    with pytest.raises(LineError) as caught:
        check_schema(schema, "place")
    assert caught.value.code is ErrorCode.SCHEMA_UNSUPPORTED
    return caught.value.message


def of_field(pattern: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"n": {"type": "string", "pattern": pattern}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("^(?!.*[aeiou]).{3,8}$", "lookahead (`(?!`)"),
        ("^(?=a)b", "lookahead (`(?=`)"),
        ("(?<=a)b", "lookbehind (`(?<=`)"),
        ("a(?<!b)", "lookbehind (`(?<!`)"),
        (r"^(a|b)\1$", r"a backreference (`\1`)"),
        (r"^(?P<x>a)(?P=x)$", "a backreference (`(?P=`)"),
        (r"\bword\b", r"a word boundary (`\b`)"),
        (r"\Aab\Z", r"an anchor other than ^ and $ (`\A`)"),
        (r"^\p{L}+$", r"a Unicode class (`\p`)"),
        ("a$b", "`$` inside a pattern"),
        ("a^b", "`^` inside a pattern"),
        ("^(a|b$)x", "`$` inside a pattern"),
        ("(?i)abc", "a flag (`(?i`)"),
    ],
)
def test_patterns(pattern: str, what: str) -> None:
    assert what in refusal(of_field(pattern))
    with pytest.raises(LineError, match="`regex`"):
        check_pattern(pattern, "regex")


@pytest.mark.parametrize(
    "pattern",
    [
        "^[b-df-hj-np-tv-z]{3}$",
        "^a|b$",
        "^(?:ab)+$",
        r"^\w\s\d[\w-]+$",
        r"\$5",
        "[$^]",
        "^(a|b)$",
        "(?P<x>a)",
        "",
    ],
)
def test_patterns_that_are_kept(pattern: str) -> None:
    check_schema(of_field(pattern), "place")


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, "`allOf` of several"),
        ({"minimum": 5}, "`minimum` without a `type`"),
        ({"minItems": 2}, "`minItems` without a `type`"),
        ({"$ref": "#/$defs/x", "minLength": 3, "$defs": {"x": {"type": "string"}}}, "`minLength` beside `$ref`"),
        ({"anyOf": [{"type": "string"}], "maxLength": 1}, "`maxLength` beside `anyOf`"),
        ({"type": "object", "properties": {"b": {}}, "required": ["a"]}, "`required` 'a' without a place"),
        ({"type": "object", "dependencies": {"a": ["b"]}}, "`dependencies`"),
        ({"$ref": "https://example.org/x"}, "a `$ref` to 'https://example.org/x'"),
        ({"type": "object", "patternProperties": {"^(?=a)": {}}}, "lookahead"),
        ({"type": "array", "items": {"anyOf": [{"type": "string", "pattern": r"\bx"}]}}, "#/items/anyOf/0"),
    ],
)
def test_schemas(schema: dict[str, Any], what: str) -> None:
    assert what in refusal(schema)


KEPT: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
    {"allOf": [{"$ref": "#/$defs/x"}], "description": "d", "$defs": {"x": {"type": "integer"}}},
    {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "T", "default": None},
    {"type": "string", "enum": ["a"], "pattern": "^a$"},
    {"type": "object", "properties": {"not": {"type": "integer"}, "minimum": {"type": "number"}}},
    {},
]


@pytest.mark.parametrize("schema", KEPT)
def test_schemas_that_are_kept(schema: dict[str, Any]) -> None:
    check_schema(schema, "place")


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"tool_choice": "required"}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, False),
        ({"tool_choice": "auto"}, False),
        ({}, False),
        ({"tool_choice": "none"}, False),
    ],
)
def test_tools_that_must_be_called_are_looked_at(body: dict[str, Any], refused: bool) -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": of_field("(?!a)")}},
        {"type": "function", "function": {"name": "g"}},
    ]
    asked = {"messages": [{"role": "user", "content": "x"}], "tools": tools, **body}
    if refused:
        with pytest.raises(LineError, match=r"`tools.0..function.parameters`: at #/properties/n: lookahead"):
            Rules().admit("/v1/chat/completions", asked)
    else:
        Rules().admit("/v1/chat/completions", asked)


def test_the_compiler_does_not_keep_what_is_refused() -> None:
    """What it would let through, so that a newer one that keeps it is noticed."""
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    broken: list[tuple[dict[str, Any], Any]] = [
        ({"type": "string", "pattern": "^(?!a).{3}$"}, "abc"),
        ({"type": "string", "pattern": "a$b"}, "ab"),
        ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, 1),
        ({"minimum": 5}, 1),
        ({"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["a"]}, {"b": 1}),
        ({"$ref": "#/$defs/x", "minLength": 3, "$defs": {"x": {"type": "string"}}}, "a"),
        ({"anyOf": [{"type": "string"}], "maxLength": 1}, "abc"),
    ]
    for schema, value in broken:
        refusal(schema)
        grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema), any_whitespace=True)
        assert accepts(grammar, json.dumps(value)), f"kept by now: {schema}"


@pytest.mark.parametrize("name", ["uniqueItems", "multipleOf", "not", "if", "contains", "dependentRequired"])
def test_what_sglang_refuses_of_an_answer_is_refused_of_a_tools_arguments_too(name: str) -> None:
    value: dict[str, Any] = {"uniqueItems": True, "multipleOf": 5}.get(name, {})  # type: ignore[assignment]
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}, name: value}}}
    with pytest.raises(LineError, match=f"#/properties/a: `{name}`"):
        check_schema(schema, "place", of_tool=True)
    # Of an answer SGLang's own check says it.
    check_schema(schema, "place")


def test_a_keyword_that_asks_for_nothing_is_kept() -> None:
    check_schema({"type": "array", "uniqueItems": False}, "place", of_tool=True)
