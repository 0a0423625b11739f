"""One list of bodies through blendrun and through SGLang's own server: the same answers, or refusals by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "differential.py"
# A minute and more for two engines; `make test-deep` has it.
pytestmark = [
    pytest.mark.runtime,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("BLENDRUN_DIFFERENTIAL" not in os.environ, reason=needs.DIFFERENTIAL),
]


def test_no_answer_differs_unless_the_table_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, str(SCRIPT), "--model", "smollm2-135m", "--write", str(page)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in page.read_text().splitlines() if line.startswith(("| chat", "| comp"))]
    rows = [line.split(" | ")[-1].strip(" |") for line in lines]
    assert len(rows) >= 60
    assert set(rows) == {"same", "named", "done"}
    assert rows.count("same") > 40
