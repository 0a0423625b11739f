"""The decode kernels are called as the libraries here take it, and Triton's computes attention.

How fast they are, and whether the compiled ones run at all, only a GPU can show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.runtime


def test_kernels_take_what_they_are_given() -> None:
    pytest.importorskip("flashinfer")
    done = subprocess.run(
        [sys.executable, "-m", "tests.calibrate.call_kernels"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("triton") < 1e-5
    # rows, heads, head_dim
    assert found == {"fa3": [3, 8, 32], "flashinfer": [3, 8, 32], "trtllm_mha": [3, 8, 32]}
