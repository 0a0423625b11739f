"""A value that an option does not take is told with the option, the value and what to give; of every option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blendrun.cli.values import NUMBERS
from blendrun.errors import UsageError
from tests.cli.test_help import COMMANDS
from tests.command import REPLAY, blendrun, write_jobs

_WRONG = ("", "x", "cpu=1", "-1", "0", "1.5", "1e309", "nan", "10parsecs", "9" * 30, "\x1b[31m")
# Empty texts that say something, or are told in words of their own.
_EMPTY = {"--system-prompt", "--model", "--engine-arg", "--api-key"}
# In words of typer, or of what it is made of.
_FOREIGN = ("Invalid value", "Input should", "unable to parse", "Value error", "is not a valid")


def options() -> Iterator[tuple[str, str, Any]]:
    for words, command in COMMANDS.items():
        for each in command.params:
            names = [name for name in each.opts if name.startswith("--")]
            if names and not getattr(each, "is_flag", False) and not hasattr(command, "commands"):
                yield words, names[0], each


def said(words: str, option: str, value: str) -> str | None:
    """What the command says of a value, None where it takes it. Nothing is started."""
    command = COMMANDS[words]
    others = []
    for each in command.params:
        if each.required and option not in each.opts:
            others += [each.opts[0], "x"] if each.opts[0].startswith("--") else ["x"]
    try:
        command.make_context(words, [f"{option}={value}", *others])
    except UsageError as error:
        return str(error)
    return None


def test_every_wrong_value_is_told_with_what_to_give() -> None:
    looked = 0
    for words, option, _ in options():
        for value in _WRONG:
            if (sentence := said(words, option, value)) is None:
                assert value or option in _EMPTY, (words, option)
                continue
            looked += 1
            assert sentence.startswith(f"{option} "), sentence
            assert not any(foreign in sentence for foreign in _FOREIGN), sentence
            assert any(help in sentence for help in ("give ", "known are ")), sentence
            assert sentence.isprintable() and len(sentence) < 250
            assert not value or not value.isprintable() or value in sentence, sentence
    assert looked > 300


def test_what_is_given_as_an_example_is_taken() -> None:
    for words, option, each in options():
        sentence = said(words, option, "x") or ""
        if "number" in sentence:
            assert f"such as {option} {NUMBERS[each.name]}" in sentence
            assert said(words, option, NUMBERS[each.name]) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--price cpu=1", "--price cpu=1: give a number of at least 0, such as --price 2.5; prices by card are for"),
        ("--limit 0", "--limit 0: give a number of at least 1, such as --limit 100"),
        ("--zstd-window 40", "--zstd-window 40: give a number from 10 to 31, such as --zstd-window 27"),
        ("--dedupe maybe", "--dedupe maybe: known are auto, on, off"),
        ("--engine vllm", "--engine vllm: give sglang, replay, or addresses such as http://host:30000"),
        ("--metrics-textfile=", "--metrics-textfile is empty: give it a value, or leave it out"),
        ("--upload answers", "--upload takes an address: https://..., s3://..., gs://... or az://..., not 'answers'"),
        ("--no-resume --drain-timeout inf", "--drain-timeout inf: give a number of at least 0"),
        ("--engine-arg slotts=3", "unknown field `slotts`; known are slots, "),
    ],
    ids=lambda text: text.split()[0],
)
def test_of_a_run(tmp_path: Path, words: str, sentence: str) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 1)
    done = blendrun("run", jobs, "-o", tmp_path / "out.jsonl", *REPLAY, *words.split())
    assert done.returncode == 2
    assert f"blendrun: {sentence}" in done.stderr or sentence in done.stderr
    assert not (tmp_path / "out.jsonl.blendrun").exists()


def test_a_config_file_is_named_with_it(tmp_path: Path) -> None:
    jobs, config = write_jobs(tmp_path / "jobs.jsonl", 1), tmp_path / "run.yaml"
    config.write_text("drain_timeout: soon\n")
    done = blendrun("run", jobs, "-o", tmp_path / "out.jsonl", *REPLAY, "--config", config)
    assert done.returncode == 2
    assert f"{config}: --drain-timeout soon: give a number of at least 0, such as" in done.stderr
