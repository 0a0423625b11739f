"""Killed in the middle, lines of each url are answered once: what was on disk stays, and the rest is asked again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import EXIT_OK
from tests.good_bodies import BODIES_OF_ALL_URLS
from tests.runner.interrupted import Interrupted, signalled
from tests.runner.runner_job import lines_of, run

LINES, KILLED_AT = 12, 5
_MANY: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["Hi", "Ho"], "encoding_format": "base64", "dimensions": 1024},
    "/v1/classify": {"input": [[1, 2], [3]]},
    "/v1/score": {"query": "q", "items": ["a", "b"], "label_token_ids": [1, 2]},
    "/v1/rerank": {"query": "q", "documents": ["a", "b", "c"], "top_n": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "n": 3},
}
BODIES = [*BODIES_OF_ALL_URLS.items(), *_MANY.items()]


def job(path: Path, url: str, body: dict[str, Any]) -> Path:
    """Each line another request; of Anthropic's, every second one as its batches have them."""
    lines = []
    for row in range(LINES):
        own = body | {"model": f"m{row}"}
        batch = url == "/v1/messages" and row % 2
        lines.append({"custom_id": f"id {row}"} | ({"params": own} if batch else {"url": url, "body": own}))
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def killed(out: Path, path: Path) -> None:
    """A run of the job in a process of its own, which dies of SIGKILL when some results are out."""
    if not (child := os.fork()):
        try:
            run(out, path, engine=lambda: Interrupted(KILLED_AT, signalled(signal.SIGKILL)))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


# Python 3.12 says so of any fork beside threads; the child has none that it needs.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("url", "body"), BODIES, ids=[f"{place} {url}" for place, (url, _) in enumerate(BODIES)])
def test_lines_of_each_url(tmp_path: Path, out: Path, url: str, body: dict[str, Any]) -> None:
    path, journal = job(tmp_path / "job.jsonl", url, body), Path(f"{out}.blendrun", "journal")
    killed(out, path)
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    answered = kept.count(b"\n") - 1
    assert 0 < answered <= KILLED_AT and not out.exists()
    asked: list[int] = []

    class Asked(ReplayEngine):
        async def submit(self, item: Any) -> None:
            asked.append(item.row)
            await super().submit(item)

    ended = run(out, path, engine=lambda: Asked(ReplaySettings()))
    assert ended.exit_code == EXIT_OK and len(asked) == LINES - answered == len(set(asked))
    assert journal.read_bytes().startswith(kept)
    found = lines_of(out)
    assert [each["custom_id"] for each in found] == [f"id {row}" for row in range(LINES)]
    whole = tmp_path / "whole.jsonl"
    run(whole, path)
    assert out.read_bytes() == whole.read_bytes()
