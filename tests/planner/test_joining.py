"""What it is predicted to bring that a later job joins one that runs: on this machine, with what the pool holds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends.joining import Asked, asked_of, work_out
from blendrun.backends.options import RunOptions
from blendrun.errors import UsageError

DOCUMENTS, WORDS = 24, 120


def documents(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(str(chance.randrange(1000)) for _ in range(WORDS)) for _ in range(DOCUMENTS)]


def write(path: Path, place: int, texts: list[str], question: str) -> Path:
    lines = [
        {
            "custom_id": f"{place}:{number}",
            "url": "/v1/completions",
            "body": {"prompt": text + question, "max_tokens": 4},
        }
        for number, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asked(folder: Path, model: Path, texts: list[str], pool: int, **more: Any) -> Asked | None:
    """Of a job that asks the documents of seed 1 something, and a later one of these texts."""
    first = write(folder / "first.jsonl", 0, documents(1), " one?")
    later = write(folder / "later.jsonl", 1, texts, " two?")
    given = {"inputs": ("job.jsonl",), "model": str(model), "engine_args": {"max_total_tokens": pool}, **more}
    return asked_of(RunOptions.of(given), first, later, ("1:",))


def test_the_same_documents_are_read_once_where_the_pool_holds_few(tmp_path: Path, tiny_model: Path) -> None:
    wanted = asked(tmp_path, tiny_model, documents(1), 2000)
    assert wanted is not None
    found = work_out(wanted)
    assert found.together < 0.8 * found.apart
    assert 0 < found.longest <= found.first < found.together


@pytest.mark.parametrize(("seed", "pool"), [(2, 2000), (1, 100_000)], ids=["other documents", "all in the pool"])
def test_nothing_is_won_where_nothing_is_shared_or_all_is_kept(
    tmp_path: Path, tiny_model: Path, seed: int, pool: int
) -> None:
    wanted = asked(tmp_path, tiny_model, documents(seed), pool)
    assert wanted is not None
    found = work_out(wanted)
    assert found.together > 0.9 * found.apart


@pytest.mark.parametrize("more", [{"engine": "http://127.0.0.1:1"}, {"engine": "replay"}, {"replicas": 2}])
def test_of_some_runs_nothing_can_be_said(tmp_path: Path, tiny_model: Path, more: dict[str, Any]) -> None:
    assert asked(tmp_path, tiny_model, documents(1), 2000, **more) is None


def test_a_job_without_a_rest_is_no_question(tmp_path: Path, tiny_model: Path) -> None:
    wanted = asked(tmp_path, tiny_model, documents(1), 2000)
    assert wanted is not None
    (tmp_path / "first.jsonl").write_text("")
    with pytest.raises(UsageError, match="nothing to plan"):
        work_out(wanted)
