"""Compiled loops stay within their arrays. Machine code does not look; here it is compiled so that it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CODE = """
import numpy as np
from blendrun.tree.compiled import I64, I64_OUT, compiled

@compiled(I64_OUT, I64)
def write(values, place):
    values[place] = 1

write(np.zeros(4, dtype=np.int64), 4)
"""


def checked(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python with loops compiled to check every index, into a cache of their own."""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder / "loops")}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def test_an_index_beyond_the_end_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "beyond.py").write_text(CODE)
    assert "IndexError: index is out of bounds" in checked(tmp_path, str(tmp_path / "beyond.py")).stderr


def test_no_loop_leaves_its_arrays(tmp_path: Path) -> None:
    """The files that need the fewest loops; `make test-deep` runs all that have loops. At once: some are in both."""
    files = ("tests/tree/test_prefix_caches.py", "tests/blend/test_partition.py")
    found = checked(tmp_path, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert found.returncode == 0, found.stdout
