"""The page for those who come from another tool: its commands are taken as they stand, its flags mean what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from blendrun.cli.app import app
from blendrun.cli.foreign_flags import VLLM
from blendrun.cli.run_batch import _parse

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
COMMANDS = sorted({each for each in re.findall(r"(?:^|`)blendrun ([a-z][^`\n]+)", PAGE, re.MULTILINE) if " " in each})


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_as_it_stands(command: str) -> None:
    name, *words = shlex.split(command)
    if name == "run-batch":
        _parse(words)
        return
    typer.main.get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]


def test_each_flag_of_the_table_is_known_and_becomes_what_it_says() -> None:
    table = PAGE[PAGE.index("| flags | here |") : PAGE.index("| any other | refused")]
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    known = {*VLLM, "i", "o", "input-file", "output-file", "lora-modules"}
    for flags, here, *_ in rows:
        names = list(re.findall(r"`--?([a-z][a-z-]*)`", flags))
        assert names
        assert set(names) <= known
        for name in names:
            flag = VLLM.get(name)
            if flag is None:
                continue
            if flag.ignored is not None:
                assert "nothing here" in here or name == "enable-metrics", name
            if flag.refused is not None:
                assert "refused" in here, name
            if flag.argument is not None and "same name" not in here:
                assert flag.argument in here, name
            if flag.argument is not None and "same name" in here:
                assert flag.argument == name.replace("-", "_"), name
