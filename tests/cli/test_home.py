"""`~` in a path is the home folder in every command, in a config file and from Python; an address is no path."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import blendrun as library
from blendrun.cli.bench import simulate
from blendrun.cli.calibrate import calibrate
from blendrun.cli.home import PATHS
from blendrun.cli.live import live
from blendrun.cli.merge import merge
from blendrun.cli.plan import plan
from blendrun.cli.report import report
from blendrun.cli.run import run
from blendrun.cli.status import status
from blendrun.cli.synth import synth
from blendrun.cli.tunnel import tunnel
from blendrun.errors import UsageError
from blendrun.paths import at_home
from tests.command import REPLAY, blendrun, environment, ids, write_jobs


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    write_jobs(folder / "jobs.jsonl", 2)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_paths_of_a_run(home: Path, tmp_path: Path) -> None:
    words = ("--output=~/a.jsonl", "--trace=~/t.json", "--metrics-textfile=~/m.prom", *REPLAY)
    done = blendrun("run", "-q", "~/jobs.jsonl", *words, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"a.jsonl", "t.json", "m.prom"} <= names(home)
    assert names(tmp_path) == {"home"}


def test_a_config_file(home: Path, tmp_path: Path) -> None:
    (home / "c.yaml").write_text("output: ~/b.jsonl\ntrace: ~/t.json\nengine: replay\n")
    done = blendrun("run", "-q", "~/jobs.jsonl", "--config=~/c.yaml", env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"b.jsonl", "t.json"} <= names(home)
    assert names(tmp_path) == {"home"}


def test_python(home: Path, tmp_path: Path) -> None:
    library.run("~/jobs.jsonl", output="~/c.jsonl", engine="replay")
    assert len(ids(home / "c.jsonl")) == 2
    assert names(tmp_path) == {"home"}


def test_every_other_command(home: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        words = ("--shard", f"{number}/2", "-o", "~/a.jsonl", *REPLAY)
        assert blendrun("run", "-q", "~/jobs.jsonl", *words, env=environment(), cwd=tmp_path).returncode == 0
    commands: tuple[tuple[str, ...], ...] = (
        ("merge", "~/a.jsonl"),
        ("status", "~/a.1-of-2.jsonl"),
        ("report", "~/a.1-of-2.jsonl", "-o", "~/page.html"),
        ("plan", "-q", "~/jobs.jsonl", "--model", "llama-3-8b", "--save", "~/plan.npz"),
        ("synth", "-q", "--model", "llama-3-8b", "--hardware", "a100-80g", "--requests", "2000", "-o", "~/mix.jsonl"),
    )
    for command in commands:
        done = blendrun(*command, env=environment(), cwd=tmp_path)
        assert done.returncode in (0, 66), done.stderr
    assert {"a.jsonl", "page.html", "mix.jsonl"} <= names(home)
    assert names(tmp_path) == {"home"}


def test_a_file_whose_name_begins_so_and_a_user_whom_nobody_knows(home: Path) -> None:
    assert at_home("~lock") == "~lock"
    with pytest.raises(UsageError, match="there is no user 'nobody-knows-me'"):
        at_home("~nobody-knows-me/a.jsonl")


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("ftp://host/a/jobs.jsonl", "ftp:// is fetched by nobody here (https, s3, gs and az are)"),
        ("hdfs://host/jobs.jsonl", "curl -sSfL ADDRESS | blendrun run - -o answers.jsonl"),
        ("file:///data/jobs.jsonl", "give the file's path, /data/jobs.jsonl"),
    ],
)
@pytest.mark.parametrize("command", [("run", *REPLAY), ("plan", "--model", "llama-3-8b")])
def test_an_address_as_input(home: Path, tmp_path: Path, command: tuple[str, ...], address: str, how: str) -> None:
    done = blendrun(command[0], address, *command[1:], cwd=tmp_path, env=environment())
    assert done.returncode == 66
    assert how in done.stderr
    assert names(tmp_path) == {"home"}


@pytest.mark.parametrize("option", ["--output", "--trace", "--metrics-textfile", "--cache", "--partial"])
def test_an_address_to_write_to(home: Path, tmp_path: Path, option: str) -> None:
    done = blendrun("run", "~/jobs.jsonl", option, "ftp://host/a", *REPLAY, cwd=tmp_path, env=environment())
    assert done.returncode == 2
    assert "is an address; write to a file, and copy that there" in done.stderr
    assert names(tmp_path) == {"home"}


def test_no_parameter_that_is_a_path_is_left_out() -> None:
    for command in (run, merge, status, report, plan, synth, calibrate, simulate, live, tunnel):
        for name, kind in get_type_hints(command).items():
            assert name in PATHS or Path not in (kind, *get_args(kind), *map(first_of, get_args(kind))), name


def first_of(kind: object) -> object:
    return next(iter(get_args(kind)), None)
