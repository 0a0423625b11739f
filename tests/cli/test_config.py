"""`--config`: the options of a command in a file, read as the command line reads them; the command line wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blendrun.cli.app import app
from blendrun.errors import BlendrunError, InputMissingError, UsageError
from tests.command import REPLAY, blendrun, ids, write_jobs


def run(folder: Path, *words: str) -> None:
    """The command in this process; ends by SystemExit or BlendrunError as `main` sees them."""
    app(["run", str(folder / "jobs.jsonl"), "-o", str(folder / "out"), "-q", *words], standalone_mode=False)


def config(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jobs(tmp_path / "jobs.jsonl", 12)
    return tmp_path


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out.blendrun" / "summary.json").read_bytes())
    return found


def test_all_kinds_of_values(folder: Path) -> None:
    text = """
    engine: replay
    model: 7
    order: shuffled
    limit: 5
    drain_timeout: 2.5
    errors-ok: true
    quiet: yes
    resume: no
    overwrite: false
    engine-args: {slots: 3, fail_every: 2}
    """
    (folder / "out").touch()
    with pytest.raises(BlendrunError, match="no run state"):
        run(folder, "--config", config(folder, text))
    (folder / "out").unlink()
    done = blendrun("run", folder / "jobs.jsonl", "-o", folder / "out", "--config", config(folder, text))
    assert done.returncode == 0, "errors-ok is taken"
    (warning,) = done.stderr.splitlines()
    assert "engine_error" in warning, "quiet is taken"
    found = summary(folder)
    assert found["counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert (found["order"], found["model"], found["exit_code"]) == ("shuffled", "7", 3)


def test_the_command_line_wins_option_by_option(folder: Path) -> None:
    path = config(
        folder, "engine: replay\nlimit: 5\norder: shuffled\nresume: no\nengine_args: {fail_every: 3, slots: 2}"
    )
    run(folder, "--config", path, "--limit", "4", "--resume", "--engine-arg", "fail_every=0")
    assert ids(folder / "out") == [f"id {row}" for row in range(4)]
    assert summary(folder)["order"] == "shuffled"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_changes_nothing(folder: Path, text: str) -> None:
    run(folder, *REPLAY, "--config", config(folder, text))
    assert len(ids(folder / "out")) == 12


@pytest.mark.parametrize("value", ["[slots=2, fail_every=3]", "fail_every=3"])
def test_engine_arg_as_on_the_command_line(folder: Path, value: str) -> None:
    run(folder, *REPLAY, "--errors-ok", "--config", config(folder, f"engine_arg: {value}"))
    assert len(ids(folder / "out")) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lmit: 3", r"unknown option 'lmit'; known are accept_changes, allow_media_files"),
        ("jobs: [a]", r"unknown option 'jobs'"),
        ("config: other.yaml", r"unknown option 'config'"),
        ("limit: 0", r"--limit 0: give a number of at least 1"),
        ("limit: many", r"--limit many: give a whole number"),
        ("limit:", r"limit takes one value, not None"),
        ("engine: vllm", r"--engine vllm: give sglang"),
        ("engine: [replay]", r"engine takes one value, not \['replay'\]"),
        ("resume: 1", r"resume is true or false, not 1"),
        ("quiet: 'no'", r"quiet is true or false, not 'no'"),
        ("engine_args: 3", r"engine_args must be a mapping"),
        # A YAML true must not arrive as the text "True".
        ("engine_args: {slots: true}", r"Expected `int`, got `bool`"),
        ("- model", r"must be a mapping of options"),
        ("1: 2", r"must be a mapping of options"),
        ("model: [", r"is not YAML"),
        ("model: \x01", r"is not YAML"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(folder, *REPLAY, "--config", config(folder, text))
    assert not (folder / "out").exists()


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(InputMissingError, match=r"cannot read .*no\.yaml: No such file"):
        run(folder, *REPLAY, "--config", str(folder / "no.yaml"))
