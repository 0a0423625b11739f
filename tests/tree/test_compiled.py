"""Kernels are compiled once a machine, and the caller can know before."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from blendrun.tree import compiled as machinery

SOURCE = """
from blendrun.tree.compiled import I32_IN, I64, compiled, inlined

STEP = {step}

@inlined
def step(value):
    return value + STEP

@inlined
def two_steps(value):
    return step(step(value))

@compiled(I32_IN, I64)
def total(values, limit):
    result = 0
    for i in range(limit):
        result += two_steps(values[i])
    return result
"""


@pytest.fixture(autouse=True)
def no_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "_KERNELS", [])


def fresh(path: Path) -> ModuleType:
    """The module as a new process would have it, with no kernel but its own."""
    machinery._KERNELS.clear()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_second_process_finds_the_code_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE.format(step=1))
    module = fresh(path)
    assert machinery.needs_compiling()
    machinery.load_kernels()
    assert not machinery.needs_compiling()
    assert module.total(np.array([1, 2, 3], dtype=np.int32), 2) == 7
    assert list((tmp_path / "__pycache__").glob("kernels.total*.nbi"))

    module = fresh(path)
    assert not machinery.needs_compiling()
    assert module.total(np.array([1, 2, 3], dtype=np.int32), 3) == 12


def test_a_changed_inner_function_compiles_its_kernels_again(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE.format(step=1))
    fresh(path).total(np.array([1], dtype=np.int32), 1)
    path.write_text(SOURCE.format(step=100))
    module = fresh(path)
    assert machinery.needs_compiling()
    assert module.total(np.array([1], dtype=np.int32), 1) == 201


def test_a_kernel_takes_read_only_arrays_and_no_other_type(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE.format(step=0))
    module = fresh(path)
    values = np.array([1, 2], dtype=np.int32)
    values.flags.writeable = False
    assert module.total(values, 2) == 3
    with pytest.raises(TypeError):
        module.total(values.astype(np.float32), 2)


def test_without_a_folder_for_the_cache_kernels_work_all_the_same() -> None:
    names: dict[str, object] = {}
    exec(SOURCE.format(step=1), names)  # Code without a file cannot be cached.
    total = names["total"]
    assert callable(total) and total(np.array([1], dtype=np.int32), 1) == 3


def test_importing_the_tree_does_not_import_numba() -> None:
    code = "import sys, blendrun.tree; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
