"""When SGLang's processes are forks of the engine process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import pytest

from blendrun.engine.cpu.forks import forking

_ALONE = """
import multiprocessing, os
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import blendrun.engine.worker as worker
worker.import_runtime()
from blendrun.engine.cpu.forks import forking
multiprocessing.set_start_method("spawn")
with forking() as safe:
    print(safe, multiprocessing.get_start_method())
print(multiprocessing.get_start_method())
"""


@pytest.mark.runtime
def test_after_the_imports_there_is_one_thread_and_a_fork_is_safe() -> None:
    """SGLang, torch and NumPy imported as the engine process has them."""
    variables = {"SGLANG_PLATFORM": "blendrun_cpu", "SGLANG_PLUGINS": "blendrun_cpu", "OMP_NUM_THREADS": "2"}
    command = ["env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, "-c", _ALONE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "fork", "spawn"], done.stderr


def test_beside_another_thread_nothing_is_forked() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        before = multiprocessing.get_start_method()
        with forking() as safe:
            assert not safe
            assert multiprocessing.get_start_method() == before
    finally:
        over.set()
        thread.join()
