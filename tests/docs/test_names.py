"""Every command, option, model, card, make target and file that README and docs name exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blendrun.cli.app import app
from blendrun.cli.run_batch import _parse
from blendrun.cost.hardware import list_hardware
from blendrun.models.cards import list_aliases, load_card

ROOT = Path(__file__).resolve().parents[2]
# Made from the code, of earlier versions, or of commands that were typed wrong.
_NOT_READ = {"CHANGELOG.md", "cli.md", "extending.md", "usability.md"}
_ALL = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md"))
# The record tells commands that went wrong, too.
_NO_PAGES = {"_build", "record"}
PAGES = sorted(path for path in _ALL if path.name not in _NOT_READ and not _NO_PAGES & set(path.parts))
COMMANDS: Any = typer.main.get_command(app)
_BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Options of Docker, Slurm, SGLang's server, of other tools for data sets, and of vLLM beside `foreign_flags`.
_OTHERS = frozenset(
    {
        *("--init", "--shm-size", "--signal", "--schedule-policy", "--enable-cache-report", "--parallel"),
        "--is-embedding",
        *("--input-file", "--output-file", "--lora-modules", "--output-dataset"),
    }
)
_PATH = re.compile(r"^(?:blendrun|configs|docs|examples|scripts|tests)/[\w./*-]+$")
_TARGET = re.compile(r"^make ([a-z-]+)$")


@dataclass(frozen=True, slots=True)
class Named:
    """A command line or an inline code of a page."""

    page: str
    text: str


def commands() -> Iterator[Named]:
    """Lines of shell blocks that call blendrun, without what stands before and behind, and such inline codes."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for block in _BLOCK.findall(text):
            for words in _shell_lines(block):
                if words and words[0] == "blendrun":
                    yield Named(path.name, shlex.join(words))
        for code in _codes(text):
            if re.match(r"blendrun [a-z]", code) and "…" not in code:
                yield Named(path.name, code)


def _shell_lines(block: str) -> Iterator[list[str]]:
    """Commands in words: what is piped, sent to a file or joined by && is one each; variables before are left out."""
    block = re.sub(r"(^|\s)#[^\n]*", "", block)
    lexer = shlex.shlex(block.replace("\\\n", " ").replace("\n", " ;\n"), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            yield words
            words = []
        elif words or not re.match(r"^(?:[A-Z_]+=.*|until|while|if|do|then|!)$", word):
            words.append(word)
    yield words


def _codes(text: str) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [code.replace("\n", " ") for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]


COMMAND_LINES = sorted({(each.page, each.text) for each in commands()})


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and what follows its name. Fails for one that there is not."""
    found = COMMANDS
    while words and hasattr(found, "commands"):
        assert words[0] in found.commands, f"blendrun has no command {words[0]}"
        found, words = found.commands[words[0]], words[1:]
    return found, words


@cache
def _options(command: Any) -> frozenset[str]:
    return frozenset(name for each in command.params for name in (*each.opts, *each.secondary_opts)) | {"--help", "-h"}


def test_there_are_many() -> None:
    assert len(COMMAND_LINES) > 80
    assert len({page for page, _ in COMMAND_LINES}) > 12


@pytest.mark.parametrize(("page", "text"), COMMAND_LINES)
def test_a_command_exists_with_its_options_models_and_cards(page: str, text: str) -> None:
    words = shlex.split(text)[1:]
    if words[0].startswith("-"):
        assert words[0] in _options(COMMANDS)
        return
    command, rest = _command(words)
    if command.name == "run-batch":
        if rest and "-o" in rest and "-i" in rest:
            _parse(rest)
        return
    for place, word in enumerate(rest):
        name, _, joined = word.partition("=")
        if re.match(r"^-{1,2}[a-z]", word):
            assert name in _options(command), f"{page}: {text}"
        value = joined or (rest[place + 1] if place + 1 < len(rest) else "")
        if name in ("--model", "-m"):
            assert value in list_aliases() or "/" in value or value.isupper() or not value, f"{page}: no model {value}"
        if name == "--hardware":
            cards = {each for each in value.split(",") if not each.isupper()}
            assert cards <= set(list_hardware()), f"{page}: no card {cards}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    words = [word for block in _BLOCK.findall(text) for word in block.split()]
    for code in (*_codes(text), *words):
        for word in code.split():
            if _PATH.match(word):
                assert list(ROOT.glob(word.rstrip("/"))), f"{page.name} names {word}"
        if found := _TARGET.match(code):
            assert found[1] in targets, f"{page.name} names make {found[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_an_option_in_the_text_is_one_of_some_command(page: Path) -> None:
    known = {name for command in _all(COMMANDS) for name in _options(command)} | _foreign()
    for code in _codes(page.read_text(encoding="utf-8")):
        if found := re.match(r"^(--[a-z][a-z-]*)(?:[ =]\S+)*$", code):
            assert found[1] in known, f"{page.name} names {found[1]}"


def _all(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _all(inner)


@cache
def _foreign() -> frozenset[str]:
    """Options of vLLM's run-batch, and of this project's scripts."""
    from blendrun.cli.foreign_flags import VLLM

    paths = (path for path in (ROOT / "scripts").rglob("*.*") if path.suffix in (".py", ".sh"))
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    return _OTHERS | frozenset(f"--{name}" for name in VLLM) | frozenset(re.findall(r"--[a-z][a-z-]+", scripts))


def test_the_table_of_models_is_that_of_the_cards() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| \[(.+?)\]\(.*?\) \| ([\d,]+) \| ([\d.,]+) \| (.+?) \|$", page, re.MULTILINE)
    cards = [load_card(alias) for alias in list_aliases()]
    listed = [
        (each.alias, each.source.hub if each.source else "", f"{each.context_length:,}", each.license) for each in cards
    ]
    assert [(alias, hub, context, license) for alias, hub, context, _, license in rows] == listed
