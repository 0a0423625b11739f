"""Modules of the working folder are run by no process of the command, whatever they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import COMMAND, REPLAY, environment, ids, write_jobs

# Of the standard library and of packages that are imported at some time.
SHADOWS = ("random", "typing", "numpy", "typer", "orjson", "signal", "multiprocessing")


@pytest.mark.parametrize("command", [(COMMAND,), (sys.executable, "-m", "blendrun")], ids=["script", "module"])
def test_none_is_imported(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 2)
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w').close()\n")
    # With its folder on the path as a package that is installed has it.
    env = environment(PYTHONPATH=str(Path(__file__).parents[2]))
    done = subprocess.run([*command, "run", "-q", "jobs.jsonl", *REPLAY], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(ids(tmp_path / "jobs.answers.jsonl")) == 2
    assert not (tmp_path / "was-run").exists()
