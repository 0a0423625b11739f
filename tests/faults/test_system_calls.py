"""Each system call of a run fails in turn: the short form of scripts/faults/system_calls.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "faults" / "system_calls.py"


@pytest.mark.skipif(shutil.which("gcc") is None, reason=needs.GCC)
@pytest.mark.parametrize(("scene", "kinds"), [("run", "rename"), ("merge", "open,list")])
def test_it_ends_as_promised_and_the_next_run_mends_it(scene: str, kinds: str, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--once", "--scenes", scene, "--kinds", kinds, "--most", "4"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert ", 0 broken" in done.stdout
