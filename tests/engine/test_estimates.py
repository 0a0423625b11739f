"""Corrected lengths: what one process writes, another that has the file open reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blendrun.engine.scheduler.estimates import Estimates

READER = """
import sys
from pathlib import Path
from blendrun.engine.scheduler.estimates import Estimates
found = Estimates(Path(sys.argv[1]))
print(found.corrected(1), flush=True)
sys.stdin.readline()
print(found.corrected(1), found.corrected(0), found.corrected(7), found.corrected(-1), flush=True)
"""


def test_a_correction_is_seen_by_a_process_that_has_the_file_open(tmp_path: Path) -> None:
    written = Estimates.create(tmp_path / "estimates", 3)
    command = [sys.executable, "-c", READER, str(tmp_path / "estimates")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "0\n"
        written.correct(1, 250)
        rest, _ = reader.communicate("\n", timeout=60)
    assert rest == "250 0 0 0\n"


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        Estimates(tmp_path / "none")
