"""The soak, short: killed at random moments and resumed, nothing is lost, changed or done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "faults" / "soak.py"


@pytest.mark.slow
def test_five_kills() -> None:
    command = [sys.executable, str(SOAK), "--kills", "5", "--lines", "600"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 kills, ")
