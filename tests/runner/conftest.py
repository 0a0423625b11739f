"""What runs in this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run writes its answers."""
    return tmp_path / "out.jsonl"
