"""What `--help` prints, of every command: whole at 80 columns, in panels, with examples taken as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from blendrun.cli.app import app
from blendrun.cli.epilogs import EXAMPLES, TERMS
from blendrun.cli.help import command_panels, option_panels
from blendrun.cli.panels import OTHERS, CommandPanel, Panel
from blendrun.cli.run_batch import _parse
from blendrun.names import EngineName, LiveOrder, OrderName, Overlap
from tests.command import blendrun

ROOT: Any = typer.main.get_command(app)
# Commands with more options than a reader takes in at a glance.
LONG = ["run", "plan", "serve", "bench live", "bench simulate", "bench tunnel"]


def commands(command: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(words), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS = dict(commands())


def context_of(words: str) -> Any:
    command, context = ROOT, ROOT.context_class(ROOT, info_name="blendrun", **ROOT.context_settings)
    for word in words.split():
        command = command.commands[word]
        context = command.context_class(command, info_name=word, parent=context)
    return context


@pytest.mark.parametrize("words", COMMANDS)
def test_help_fits_80_columns_and_ends_with_examples_and_the_place_of_the_docs(words: str) -> None:
    shown = blendrun(*words.split(), "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert blendrun(*words.split(), "-h").stdout == shown.stdout
    lines = shown.stdout.splitlines()
    examples = lines[lines.index("Examples:") + 1 : -2]
    assert [line.strip() for line in examples] == list(EXAMPLES[words])
    assert "docs/index.md" in lines[-1]
    assert max(map(len, lines)) <= 80
    for typers_own in ("<str>", "<path>", "<int", "list[", "x>=", "<=x", "…"):
        assert typers_own not in shown.stdout


def test_help_is_the_same_in_a_pipe_of_a_narrow_terminal_and_breaks_no_example(tmp_path: Any) -> None:
    narrow = blendrun("run", "--help", env={"COLUMNS": "60"}).stdout.splitlines()
    assert all(f"  {example}" in narrow for example in EXAMPLES["run"])


@pytest.mark.parametrize("words", LONG)
def test_every_option_of_a_long_command_stands_under_a_heading(words: str) -> None:
    panels = dict(option_panels(COMMANDS[words], context_of(words)))
    assert [entry.names for entry in panels[OTHERS]] == [("-h", "--help")]
    known = [panel.value for panel in Panel]
    assert [title for title in panels if title in known] == [title for title in known if title in panels]
    assert not panels.keys() - {*known, OTHERS, "Arguments"}


def test_every_command_stands_in_a_group_with_a_first_sentence_that_fits() -> None:
    panels = dict(command_panels(ROOT, context_of("")))
    assert list(panels) == [panel.value for panel in CommandPanel]
    entries = [entry for listed in panels.values() for entry in listed]
    assert {entry.term for entry in entries} == ROOT.commands.keys()
    for entry in entries:
        assert entry.text.endswith(".")
        assert len(entry.text) <= 66


def test_every_mode_is_explained_and_every_term_is_a_name_that_there_is() -> None:
    names = {*OrderName, *Overlap, *EngineName, *LiveOrder}
    for words, terms in TERMS.items():
        found = {name for term, _ in terms for name in term.split(", ")}
        assert found <= names
        assert found >= {*Overlap} - ({Overlap.PDMUX} if words == "bench tunnel" else set())


@pytest.mark.parametrize("example", sorted({each for listed in EXAMPLES.values() for each in listed}))
def test_an_example_is_taken_as_it_stands(example: str) -> None:
    program, name, *words = shlex.split(example)
    assert program == "blendrun"
    if name == "run-batch":
        _parse(words)
        return
    command = ROOT.commands[name]
    if hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(name, words)
