"""In a notebook: a real Jupyter kernel runs a job, is interrupted, and runs it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.command import ids, lines_of, write_jobs
from tests.processes import children, wait_for

ROWS = 200
RUN = """
import blendrun
summary = blendrun.run({jobs!r}, engine="replay", output={output!r}, engine_args={arguments}, drain_timeout=0.2)
print(summary.counts.total, len(list(blendrun.read({output!r}))))
"""


class Notebook:
    """A kernel, and cells that are run in it one after the other."""

    def __init__(self) -> None:
        self.client = NotebookClient(nbformat.v4.new_notebook(), timeout=None, kernel_name="python3")
        self.client.create_kernel_manager()
        self.client.start_new_kernel()
        self.client.start_new_kernel_client()

    def run(self, code: str) -> str:
        """What a cell prints. Raises CellExecutionError."""
        cell = nbformat.v4.new_code_cell(code)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    found = Notebook()
    try:
        yield found
    finally:
        found.client._cleanup_kernel()


def test_a_job_that_is_interrupted_and_run_again_has_every_line_once(notebook: Notebook, tmp_path: Path) -> None:
    jobs, output = write_jobs(tmp_path / "jobs.jsonl", ROWS), tmp_path / "answers.jsonl"
    journal = tmp_path / "answers.jsonl.blendrun" / "journal"
    slow = RUN.format(jobs=str(jobs), output=str(output), arguments={"slots": 2, "real_time": 4})
    fast = RUN.format(jobs=str(jobs), output=str(output), arguments={})
    # The interrupt of a notebook is SIGINT to the kernel, once some lines are answered.
    watcher = f"""
import os, signal, threading, time
def interrupt():
    while not (os.path.exists({str(journal)!r}) and open({str(journal)!r}, "rb").read().count(b"\\n") > 10):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""
    notebook.run(watcher)
    with pytest.raises(CellExecutionError, match="InterruptedRunError") as caught:
        notebook.run(slow)
    assert "the same command resumes" in str(caught.value)
    done = journal.read_bytes().count(b"\n")
    assert 10 < done < ROWS
    # The kernel lives, its loop too, and nothing of the run is left below it.
    assert notebook.run("import asyncio; await asyncio.sleep(0); print(asyncio.get_running_loop().is_running())") == (
        "True\n"
    )
    assert notebook.run(fast).split() == [str(ROWS), str(ROWS)]
    assert ids(output) == [f"id {row}" for row in range(ROWS)]
    assert len({line["id"] for line in lines_of(output)}) == ROWS


@pytest.mark.runtime
def test_a_real_engine_is_gone_after_an_interrupt(notebook: Notebook, tmp_path: Path, tiny_model: Path) -> None:
    jobs, output = tmp_path / "jobs.jsonl", tmp_path / "answers.jsonl"
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    lines = [{"custom_id": f"id {row}", "url": "/v1/chat/completions", "body": asked} for row in range(4)]
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code = f"""
import blendrun, os, signal, threading
def interrupt(event):
    if getattr(event, "name", "") == "run":
        os.kill(os.getpid(), signal.SIGINT)
    if getattr(event, "name", "") == "load":
        print("engine of", os.getpid())
options = dict(model={str(tiny_model)!r}, device="cpu", threads=1, output={str(output)!r})
"""
    notebook.run(code)
    kernel = int(notebook.run("print(os.getpid())"))
    with pytest.raises(CellExecutionError, match="InterruptedRunError"):
        notebook.run(f"blendrun.run({str(jobs)!r}, progress=interrupt, drain_timeout=0, **options)")
    wait_for(lambda: not children(kernel))
    assert notebook.run(f"print(blendrun.run({str(jobs)!r}, **options).counts.failed)") == "0\n"
    assert ids(output) == [f"id {row}" for row in range(4)]
    wait_for(lambda: not children(kernel))
