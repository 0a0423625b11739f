"""Answer forms are compiled as the engine would, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import blendrun.engine.grammars as grammars
from blendrun.engine.grammars import Form, GrammarsUnavailableError, compile_forms, form_of

GOOD = Form("json_schema", '{"type": "object"}')


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "objet"}}}},
            Form("json_schema", '{"type": "objet"}'),
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}}, None),
        ({"response_format": [], "regex": None}, None),
        ({"regex": "((("}, Form("regex", "(((")),
        ({"ebnf": "root ::= x"}, Form("ebnf", "root ::= x")),
        ({"json_schema": "{"}, Form("json_schema", "{")),
    ],
)
def test_the_form_of_a_body(body: dict[str, Any], form: Form | None) -> None:
    assert form_of(body) == form


def test_the_module_imports_no_compiler() -> None:
    program = "import sys, blendrun.engine.grammars; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint({"torch", "sglang", "xgrammar"})


@pytest.mark.runtime
def test_each_form_gets_its_answer_in_order() -> None:
    pytest.importorskip("xgrammar")
    forms = [
        GOOD,
        Form("json_schema", '{"type": "objet"}'),
        Form("json_schema", '{"if": {"type": "string"}, "then": {"maxLength": 3}}'),
        Form("json_schema", "{"),
        Form("regex", "[a-z]{3}"),
        Form("regex", "((("),
        Form("ebnf", 'root ::= "a"'),
        Form("ebnf", "root ::= x"),
        Form("ebnf", "root ::= root"),
        Form("json_schema", '{"type": "string", "enum": ["é", "日本"]}'),
    ]
    messages = list(compile_forms(forms))
    assert [message is None for message in messages] == [
        *[True, False, False, False, True, False, True, False, False, True]
    ]
    assert messages[8] == "it allows no answer at all"
    assert messages[1] == 'Unsupported type "objet"', "neither time nor source place of the compiler"
    assert "if, then would be ignored" in str(messages[2])


def replace_process(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Another program in the compiler's place: a real one cannot be made to crash or hang on demand."""
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", program], **options))


def test_a_form_that_ends_the_compiler_is_named_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_process(
        monkeypatch,
        "import os, sys\nfor line in sys.stdin:\n os.abort() if 'bad' in line else print('null', flush=True)",
    )
    bad = Form("regex", "bad")
    assert list(compile_forms([GOOD, bad, GOOD, bad, bad, GOOD])) == [
        None,
        "the grammar compiler ends with it",
        None,
        *["the grammar compiler ends with it"] * 2,
        None,
    ]


def test_a_form_that_takes_for_ever_is_named_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "_FORM_S", 1.0)
    replace_process(
        monkeypatch,
        "import sys, time\nfor line in sys.stdin:\n time.sleep(60 * ('bad' in line)); print('null', flush=True)",
    )
    assert list(compile_forms([GOOD, Form("regex", "bad"), GOOD])) == [None, "it does not compile within 1 s", None]


def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_process(monkeypatch, "import sys; sys.stderr.write('no xgrammar'); sys.exit(3)")
    with pytest.raises(GrammarsUnavailableError, match="no xgrammar"):
        list(compile_forms([GOOD]))
