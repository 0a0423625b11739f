"""Whether the forms that answers must have compile, before an engine is loaded.

They are compiled in a process of its own (`python -m blendrun.engine.grammars`): the compiler imports torch, and a form
can end it. The module imports neither. As SGLang does it (constrained/xgrammar_backend.py), but with the
256 bytes for a vocabulary: what a form may say does not depend on the tokenizer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from blendrun.engine.orphans import end_with_parent
from blendrun.engine.sglang_names import SCHEMA_REFUSAL

# Seconds: to import the compiler on a slow disk, and for one form. SGLang gives up on a form after a while too.
_START_S, _FORM_S = 300.0, 60.0
_UNAVAILABLE = 3


class GrammarsUnavailableError(Exception):
    """The compiler cannot be started; the message says why."""


class Form(msgspec.Struct, frozen=True):
    """What an answer must look like. kind: json_schema, regex or ebnf; text: as the compiler takes it."""

    kind: str
    text: str


def form_of(body: dict[str, Any]) -> Form | None:
    """The form that a body asks for; None where there is none, or one that only the engine can judge (tools)."""
    for kind in ("regex", "ebnf", "json_schema"):
        if isinstance(text := body.get(kind), str) and text:
            return Form(kind, text)
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return Form("json_schema", json.dumps(schema)) if isinstance(schema, dict) else None


def compile_forms(forms: Sequence[Form]) -> Iterator[str | None]:
    """For each form None where it compiles, else why it does not. Raises GrammarsUnavailableError."""
    done = 0
    while done < len(forms):
        answers, reason = _compile_from(forms[done:])
        yield from answers
        done += len(answers)
        if done < len(forms):
            # The process ended, or took too long, on the one that has no answer.
            yield reason
            done += 1


def _compile_from(forms: Sequence[Form]) -> tuple[list[str | None], str]:
    """Answers of one process, and what is to be said of the form that it did not answer."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(b"".join(msgspec.json.encode(form) + b"\n" for form in forms))
        given.seek(0)
        command = [sys.executable, "-P", "-m", "blendrun.engine.grammars"]
        with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=said, bufsize=0) as process:
            assert process.stdout is not None, "a pipe was asked for"
            try:
                answers, late = _answers(process.stdout.fileno(), len(forms))
            except BaseException:
                # A signal must not wait for a form that never compiles.
                process.kill()
                raise
            if late:
                process.kill()
        if process.returncode == _UNAVAILABLE:
            said.seek(0)
            raise GrammarsUnavailableError(said.read().decode(errors="replace").strip()[-300:] or "no reason given")
    return answers, f"it does not compile within {_FORM_S:.0f} s" if late else "the grammar compiler ends with it"


def _answers(descriptor: int, count: int) -> tuple[list[str | None], bool]:
    """What comes until all is there, the process ends or one form takes too long; and whether the last was the case."""
    answers: list[str | None] = []
    text = b""
    while len(answers) < count:
        line, end, rest = text.partition(b"\n")
        if end:
            answers.append(msgspec.json.decode(line, type=str | None))
            text = rest
        elif not select.select([descriptor], [], [], _FORM_S if answers else _START_S)[0]:
            return answers, True
        elif piece := os.read(descriptor, 65_536):
            text += piece
        else:
            break
    return answers, False


def main() -> None:
    """The process: a form a line on stdin, null or a message a line on stdout. Ends when its parent does."""
    end_with_parent()
    # What the compiler prints itself must not come between.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        compilers = _compilers()
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_UNAVAILABLE)
    for message in _messages(sys.stdin.buffer, compilers):
        answers.write(msgspec.json.encode(message) + b"\n")


def _messages(lines: Iterable[bytes], compilers: dict[str, Callable[[str], object]]) -> Iterator[str | None]:
    for line in lines:
        form = msgspec.json.decode(line, type=Form)
        try:
            compilers[form.kind](form.text)
        except (RuntimeError, ValueError) as error:
            yield _plain(str(error))
        else:
            yield None


def _compilers() -> dict[str, Callable[[str], object]]:
    from xgrammar import GrammarCompiler, GrammarMatcher, TokenizerInfo, allocate_token_bitmask

    vocabulary = [bytes([byte]) for byte in range(256)]
    compiler = GrammarCompiler(TokenizerInfo([*vocabulary, b"</s>"], stop_token_ids=[len(vocabulary)]))
    refuse_ignored = _sglang_refusal()

    def json_schema(text: str) -> Any:
        refuse_ignored(json.loads(text))
        return compiler.compile_json_schema(text, any_whitespace=True)

    def check(make: Callable[[str], Any], text: str) -> None:
        mask = allocate_token_bitmask(1, len(vocabulary) + 1)
        GrammarMatcher(make(text)).fill_next_token_bitmask(mask)
        if not mask.any():
            raise ValueError("it allows no answer at all")

    kinds: dict[str, Callable[[str], Any]] = {
        "json_schema": json_schema,
        "regex": compiler.compile_regex,
        "ebnf": compiler.compile_grammar,
    }
    return {kind: partial(check, make) for kind, make in kinds.items()}


def _sglang_refusal() -> Callable[[Any], object]:
    """SGLang's own check for what the compiler would pass over. Its file alone: the package takes long to import."""
    package = importlib.util.find_spec("sglang")
    *path, name = SCHEMA_REFUSAL.split(".")[1:]
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder, *path).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(path[-1], file)
        # Versions before 0.5.21 pass over what they do not know.
        if file.exists() and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            refusal: Callable[[Any], object] = getattr(module, name)
            return refusal
    return lambda _: None


def _plain(message: str) -> str:
    """The compiler's message without the time and place in its source that it begins with."""
    return message.rpartition(".cc:")[2].partition(": ")[2].strip() or message.strip()


if __name__ == "__main__":
    main()
