"""What a run promises, for lines of every url: an answer or an error each, kills, resumes, limits, servers."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from blendrun.errors import EngineUnavailableError, InputInvalidError
from blendrun.names import Purpose
from tests.answering_server import answering
from tests.command import blendrun
from tests.good_bodies import BODIES_OF_ALL_URLS
from tests.runner.interrupted import Interrupted, die
from tests.runner.runner_job import lines_of, no_engine, run, write

URLS = sorted(BODIES_OF_ALL_URLS)
READ = ["/v1/classify", "/v1/embeddings", "/v1/rerank", "/v1/score"]
ROWS = 8


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def request(url: str, row: int, **fields: Any) -> bytes:
    return json.dumps({"custom_id": f"r{row}", "url": url, "body": BODIES_OF_ALL_URLS[url] | fields}).encode()


@pytest.fixture
def jobs(url: str, tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *(request(url, row) for row in range(ROWS)))


def test_bad_lines_are_error_lines_and_cost_no_other_its_answer(url: str, tmp_path: Path, out: Path) -> None:
    jobs = write(tmp_path / "jobs.jsonl", request(url, 0), request(url, 1, no_such_field=1), request(url, 2))
    summary = run(out, jobs)
    assert (summary.counts.completed, summary.counts.failed) == (2, 1)
    (error,) = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert (error["custom_id"], error["error"]["line"]) == ("r1", 2)
    assert "`no_such_field` would have no effect" in error["error"]["message"]


def test_after_an_engine_died_only_the_rest_runs_and_no_answer_changes(jobs: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError):
        run(out, jobs, engine=lambda: Interrupted(3, die))
    resumed = run(out, jobs)
    assert resumed.counts.completed == ROWS
    run(tmp_path / "whole.jsonl", jobs)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_limit_and_then_the_rest(jobs: Path, out: Path) -> None:
    assert run(out, jobs, limit=3).counts.completed == 3
    assert run(out, jobs).counts.completed == ROWS
    assert [line["custom_id"] for line in lines_of(out)] == [f"r{row}" for row in range(ROWS)]
    run(out, jobs, engine=no_engine)


@pytest.mark.parametrize("url", READ, indirect=True)
def test_nothing_is_decoded(jobs: Path, out: Path) -> None:
    summary = run(out, jobs)
    assert summary.tokens.prompt > 0 and summary.tokens.output == 0
    assert summary.finish_reasons == {}


def test_answers_of_an_engine_that_embeds_are_told_from_others(tmp_path: Path, out: Path) -> None:
    jobs = write(tmp_path / "jobs.jsonl", *(request("/v1/rerank", row) for row in range(3)))
    run(out, jobs, purpose=lambda _: Purpose.EMBED)
    assert json.loads((tmp_path / "out.jsonl.blendrun" / "manifest.json").read_text())["answer_settings"] == {
        "is_embedding": True
    }
    run(out, jobs, purpose=lambda _: Purpose.EMBED, engine=no_engine)
    again = run(out, jobs, purpose=lambda _: Purpose.GENERATE, accept_changes=True)
    assert again.throughput["input_throughput"] > 0, "they were answered again"


def test_a_job_that_one_engine_cannot_answer_begins_nothing(tmp_path: Path, out: Path) -> None:
    jobs = write(tmp_path / "jobs.jsonl", request("/v1/rerank", 0))

    def refuse(_: object) -> Purpose:
        raise InputInvalidError("two engines")

    with pytest.raises(InputInvalidError, match="two engines"):
        run(out, jobs, purpose=refuse, engine=no_engine)
    assert not out.exists()


SERVED: dict[str, Any] = {
    "/v1/embeddings": {"data": [{"index": 0, "object": "embedding", "embedding": [0.5, 0.25]}]},
    "/v1/score": {"data": [{"index": 0, "object": "score", "score": 0.5}]},
    # As SGLang's servers have it.
    "/v1/rerank": [{"index": 0, "score": 0.5, "document": "Ho", "meta_info": {"prompt_tokens": 3}}],
    "/v1/classify": {"data": [{"index": 0, "label": "A", "probs": [1.0], "num_classes": 1}]},
}


def server(answers: dict[str, Any]) -> AbstractContextManager[str]:
    """The address of a server that gives one answer for each url."""

    def answer(path: str, _: Any) -> Any:
        found = answers[path]
        return found | {"usage": {"prompt_tokens": 3, "total_tokens": 3}} if isinstance(found, dict) else found

    return answering("reader", answer)


def mixed(tmp_path: Path) -> Path:
    """A line of each url that decodes nothing: one server may have them all."""
    return write(tmp_path / "jobs.jsonl", *(request(url, row) for row, url in enumerate(SERVED)))


def test_servers_answer_each_at_its_url(tmp_path: Path, out: Path) -> None:
    with server(SERVED) as address:
        done = blendrun("run", mixed(tmp_path), "--engine", address, "-o", out)
    assert done.returncode == 0, done.stderr
    bodies = [line["response"]["body"] for line in lines_of(out)]
    assert bodies[0]["data"][0]["embedding"] == [0.5, 0.25] and bodies[1]["data"][0]["score"] == 0.5
    assert bodies[2]["results"] == [{"index": 0, "relevance_score": 0.5, "document": {"text": "Ho"}}]
    assert bodies[2]["usage"]["prompt_tokens"] == 3 and bodies[3]["data"][0]["label"] == "A"


def test_what_servers_give_is_looked_at(tmp_path: Path, out: Path) -> None:
    wrong = {
        "/v1/embeddings": {"data": [{"index": 0, "embedding": None}]},
        "/v1/score": {"data": []},
        "/v1/rerank": {"results": [{"index": 0, "relevance_score": 1.0}] * 2},
        "/v1/classify": [1],
    }
    with server(wrong) as address:
        few = ("--engine-arg", "tries=1")
        done = blendrun("run", mixed(tmp_path), "--engine", address, "-o", out, *few)
    assert done.returncode == 3, done.stderr
    messages = [line["error"]["message"] for line in lines_of(tmp_path / "out.jsonl.errors.jsonl")]
    assert [
        word in message
        for word, message in zip(
            ("without `embedding` in data 0", "without data", "2 of the 1 results", "no JSON object"),
            messages,
            strict=True,
        )
    ] == [True] * 4, messages
