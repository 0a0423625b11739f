"""Kernels are compiled once a machine, and the caller can know before."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from blendrun.tree import compiled as machinery
from tests.imports import loaded_by

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
    assert list(Path(os.environ.get("NUMBA_CACHE_DIR", tmp_path)).rglob("kernels.total*.nbi"))

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


PARTS = """
from blendrun.tree.compiled import inlined
from {name}_numbers import STEP

@inlined
def step(value):
    return value + STEP * {factor}
"""

KERNEL = """
from blendrun.tree.compiled import I32_IN, compiled, inlined
from {name}_parts import step

@inlined
def first_step(values):
    return step(values[0])

@compiled(I32_IN)
def total(values):
    return first_step(values)
"""


def test_kernels_call_functions_of_other_files_and_notice_their_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name, path = "manyfiles", tmp_path / "manyfiles.py"
    path.write_text(KERNEL.format(name=name))

    def module(number: int, factor: int) -> ModuleType:
        (tmp_path / f"{name}_numbers.py").write_text(f"STEP = {number}")
        (tmp_path / f"{name}_parts.py").write_text(PARTS.format(name=name, factor=factor))
        for part in ("numbers", "parts"):
            sys.modules.pop(f"{name}_{part}", None)
        importlib.invalidate_caches()
        return fresh(path)

    one = np.array([1], dtype=np.int32)
    assert module(number=1, factor=1).total(one) == 2
    same = module(number=1, factor=1)
    assert not machinery.needs_compiling()
    assert same.total(one) == 2
    changed = module(number=1, factor=10)
    assert machinery.needs_compiling()
    assert changed.total(one) == 11
    other_constant = module(number=7, factor=10)
    assert machinery.needs_compiling()
    assert other_constant.total(one) == 71


RECORDS = """
import numpy as np
from blendrun.tree.compiled import I64, compiled

PAIR = np.dtype([("one", "i4"), ("two", "f8")])

@compiled(PAIR, I64)
def add(pairs, number):
    pairs[0].two += pairs[0].one * number
"""


def test_a_kernel_takes_arrays_of_records(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(RECORDS)
    module = fresh(path)
    pairs = np.array([(2, 0.5)], dtype=module.PAIR)
    module.add(pairs, 3)
    assert pairs["two"].tolist() == [6.5]


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
    assert "numba" not in loaded_by("blendrun.tree")


TWO = """
from blendrun.tree.compiled import I64, compiled

@compiled(I64)
def more(value):
    return value + 1

@compiled(I64)
def twice(value):
    return 2 * value
"""


@pytest.mark.parametrize("found", [True, False])
def test_some_kernels_are_compiled_beside_and_here_where_that_fails(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"two_kernels_{found}.py"
    path.write_text(TWO)
    monkeypatch.setattr(machinery, "_cores", lambda: 2)
    if found:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    module = fresh(path)
    monkeypatch.setitem(sys.modules, path.stem, module)
    mine, others = machinery._divided(machinery._missing())
    assert (len(mine), len(others)) == (1, 1)
    beside = machinery._start_compiling(others)
    assert beside is not None
    assert (beside.wait() == 0) is found
    assert len(machinery._missing()) == (1 if found else 2)
    machinery.load_kernels()
    assert (module.more(1), module.twice(4)) == (2, 8)


def test_one_core_compiles_all_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "_cores", lambda: 1)
    path = tmp_path / "two_kernels.py"
    path.write_text(TWO)
    fresh(path)
    assert machinery._divided(machinery._KERNELS) == (machinery._KERNELS, [])


REORDERED = """
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from blendrun.tree.compiled import I32_IN, I64, compiled, {mark}

@intrinsic
def more(_, value):
    def write(context, builder, signature, arguments):
        return builder.add(arguments[0], arguments[0].type({step}))
    return types.int64(types.int64), write

@{mark}
def total_of(values, limit):
    result = 0.0
    for i in range(limit):
        result += values[i]
    return result

@compiled(I32_IN, I64)
def total(values, limit):
    return more(np.int64(total_of(values, limit)))
"""


@pytest.mark.parametrize("before, after", [({"mark": "inlined"}, {"mark": "reordered"}), ({"step": 1}, {"step": 2})])
def test_instructions_and_the_freedom_to_reorder_are_part_of_the_name(
    tmp_path: Path, before: dict[str, object], after: dict[str, object]
) -> None:
    """Code in the cache is not taken for that of a kernel whose intrinsics, or allowances, were others."""
    path, usual = tmp_path / "kernels.py", {"mark": "reordered", "step": 1}
    values = np.arange(5, dtype=np.int32)
    for words in (before, after):
        chosen = usual | words
        # Python takes a file of one size and second for the one that it has compiled.
        path.write_text(REORDERED.format(**chosen) + "\n" * int(str(chosen["step"])))
        module = fresh(path)
        assert machinery.needs_compiling()
        machinery.load_kernels()
        assert module.total(values, 4) == 6 + int(str(chosen["step"]))


def test_c_code_can_call_a_kernel(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(
        "from blendrun.tree.compiled import I64, compiled\n@compiled(I64)\ndef double(x):\n    return 2 * x\n"
    )
    address = fresh(path).double.address
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(21) == 42


def test_kernels_of_one_package_are_loaded_alone(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE.format(step=1))
    fresh(path)
    machinery.load_kernels("another.package")
    assert machinery.needs_compiling()
    machinery.load_kernels("kern")
    assert not machinery.needs_compiling()


@pytest.mark.parametrize("cores, begun", [(2, [["total"], []]), (1, [])])
def test_kernels_of_one_package_are_compiled_beside_other_work_if_they_are_in_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, begun: list[list[str]]
) -> None:
    path, started = tmp_path / "kernels.py", list[list[str]]()

    class Process:
        def wait(self) -> None:
            started.append([])

    def start(kernels: list[machinery.Kernel[..., object]]) -> Process:
        started.append([kernel.function.__name__ for kernel in kernels])
        return Process()

    monkeypatch.setattr(machinery, "_start_compiling", start)
    monkeypatch.setattr(machinery, "_cores", lambda: cores)
    path.write_text(SOURCE.format(step=1))
    fresh(path)
    machinery.compile_beside("another.package")()
    assert started == []
    machinery.compile_beside("kern")()
    assert started == begun
    machinery.load_kernels("kern")
    machinery.compile_beside("kern")()
    assert started == begun
