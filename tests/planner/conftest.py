"""What tests of plans share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def with_loops(loops: None) -> None:
    """Small jobs are planned by compiled loops; `test_small_jobs.py` does without."""
