"""The pool that is planned with is the one that SGLang's own code works out, on every card and for every size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.runtime

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "pool.py"


def test_it_is_within_two_per_cent(tmp_path: Path) -> None:
    pytest.importorskip("sglang", reason="needs sglang")
    out = tmp_path / "pool.json"
    # In a process of its own: SGLang is told that a GPU is there.
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", out],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    rows = json.loads(out.read_bytes())
    assert len({(row["card"], row["model"]) for row in rows}) == 18
    assert [row for row in rows if (row["tokens"] is None) != (row["planned"] is None)] == []
    fit = [row for row in rows if row["tokens"] is not None]
    assert len(fit) >= len(rows) - 1
    assert [row for row in fit if abs(row["planned"] / row["tokens"] - 1) > 0.02] == []
