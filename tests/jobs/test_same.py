"""Which requests of a job are one and the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.endpoints.rules import FOR_PLANNING
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.same import ALONE, Sameness
from blendrun.jobs.source import open_sources
from blendrun.names import Dedupe

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def job_of(folder: Path, bodies: list[tuple[str, dict[str, Any]]], same: Sameness | None, **settings: Any) -> Job:
    path = folder / "jobs.jsonl"
    lines = [{"custom_id": f"id {row}", "url": url, "body": body} for row, (url, body) in enumerate(bodies)]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return index_jobs(open_sources([path], folder / "spool"), same=same, rules=FOR_PLANNING, **settings)


def copies(folder: Path, *bodies: dict[str, Any], url: str = CHAT, same: Sameness | None = None) -> list[int]:
    asked = [(url, ({"messages": HELLO} if url == CHAT else {}) | body) for body in bodies]
    with job_of(folder, asked, Sameness() if same is None else same) as job:
        assert not job.rejected.any()
        return [int(row) for row in job.copy_of]


GREEDY = {"temperature": 0}


@pytest.mark.parametrize(
    "body", [GREEDY, {"temperature": 1e-7}, {"seed": 3}, {"seed": 0, "temperature": 1.5}, {"top_k": 1}]
)
def test_a_determined_answer_is_asked_for_once(tmp_path: Path, body: dict[str, Any]) -> None:
    assert copies(tmp_path, body, body, body) == [-1, 0, 0]


@pytest.mark.parametrize("body", [{}, {"temperature": 0.1}, {"temperature": None}, {"top_k": 2}])
def test_a_drawn_answer_is_asked_for_each_time_unless_that_is_asked_for(tmp_path: Path, body: dict[str, Any]) -> None:
    assert copies(tmp_path, body, body) == [-1, -1]
    assert copies(tmp_path, body, body, same=Sameness(Dedupe.ON)) == [-1, 0]


def test_without_a_temperature_what_the_engine_uses_decides(tmp_path: Path) -> None:
    greedy = Sameness(greedy=frozenset((CHAT,)))
    assert copies(tmp_path, {}, {}, same=greedy) == [-1, 0]
    assert copies(tmp_path, {"temperature": 1}, {"temperature": 1}, same=greedy) == [-1, -1]
    assert copies(tmp_path, {"prompt": "a"}, {"prompt": "a"}, url=COMPLETIONS, same=greedy) == [-1, -1]


@pytest.mark.parametrize("mode", [Dedupe.AUTO, Dedupe.ON])
def test_several_choices_are_never_shared(tmp_path: Path, mode: Dedupe) -> None:
    assert copies(tmp_path, GREEDY | {"n": 2}, GREEDY | {"n": 2}, same=Sameness(mode)) == [-1, -1]
    assert copies(tmp_path, GREEDY | {"n": 1}, GREEDY | {"n": 1}, same=Sameness(mode)) == [-1, 0]


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 8},
        {"stop": ["x"]},
        {"model": "another"},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "Hello "}]},
        {"messages": [{"role": "system", "content": "Hello"}]},
    ],
)
def test_what_decides_the_answer_keeps_requests_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    for mode in (Dedupe.AUTO, Dedupe.ON):
        assert copies(tmp_path, GREEDY, GREEDY | other, GREEDY, same=Sameness(mode)) == [-1, -1, 0]


def test_bookkeeping_and_the_order_of_fields_do_not(tmp_path: Path) -> None:
    first = {"temperature": 0, "max_tokens": 4, "user": "a", "metadata": {"row": "1"}}
    second = {"metadata": {"row": "2"}, "max_tokens": 4, "temperature": 0, "user": "b", "store": True}
    assert copies(tmp_path, first, second, {"max_tokens": 4, "temperature": 0}) == [-1, 0, 0]


def test_what_decodes_nothing_is_determined(tmp_path: Path) -> None:
    for url, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/classify", {"input": "a"}),
        ("/v1/score", {"text_1": "a", "text_2": "b"}),
        ("/v1/rerank", {"query": "a", "documents": ["b", "c"]}),
    ):
        assert copies(tmp_path, body, body, url=url) == [-1, 0]


def test_equal_words_at_two_urls_are_two_requests(tmp_path: Path) -> None:
    responses = {"input": "Hello", "temperature": 0}
    asked: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {"messages": HELLO, "temperature": 0}),
        ("/v1/responses", responses),
        ("/v1/responses", responses),
    ]
    # Its answers repeat what is bookkeeping elsewhere.
    asked.append(("/v1/responses", responses | {"metadata": {"a": "b"}}))
    with job_of(tmp_path, asked, Sameness()) as job:
        assert job.copy_of.tolist() == [-1, -1, 1, -1]


def test_off_and_nobody_asking_find_none(tmp_path: Path) -> None:
    for same in (None, Sameness(Dedupe.OFF, keeps=True)):
        with job_of(tmp_path, [(CHAT, {"messages": HELLO} | GREEDY)] * 3, same) as job:
            assert job.copy_of.tolist() == [-1, -1, -1]
            assert job.distinct.tolist() == [0, 1, 2]


def test_only_what_a_line_holds_itself_is_kept_for_other_runs(tmp_path: Path) -> None:
    def showing(url: str) -> tuple[str, dict[str, Any]]:
        content = [{"type": "image_url", "image_url": {"url": url}}]
        return CHAT, {"messages": [{"role": "user", "content": content}]} | GREEDY

    asked = [showing("data:image/png;base64,AAAA"), showing("file:///tmp/a.png"), showing("https://a.example/a.png")]
    with job_of(tmp_path, [*asked, asked[1], (CHAT, {"messages": HELLO})], Sameness(keeps=True)) as job:
        assert job.keepable.tolist() == [True, False, False, False, False]
        assert job.copy_of.tolist() == [-1, -1, -1, 1, -1]
        assert job.asked[4].tobytes() == ALONE


def test_a_part_of_a_job_has_first_ones_of_its_own(tmp_path: Path) -> None:
    asked = [(CHAT, {"messages": HELLO} | GREEDY)] * 4
    with job_of(tmp_path, asked, Sameness()) as job:
        assert job.take(np.array([1, 3])).copy_of.tolist() == [-1, 0]
        assert job.select(2).copy_of.tolist() == [-1, 0]


@given(kinds=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_each_copy_names_the_first_line_that_asks_the_same(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[int, bool]]
) -> None:
    """As a dict of bodies has it; drawn answers (of the second kind) are alone."""
    first: dict[int, int] = {}
    expected, bodies = [], []
    for row, (kind, determined) in enumerate(kinds):
        messages = [{"role": "user", "content": f"{kind}"}]
        bodies.append((CHAT, {"messages": messages, "temperature": 0 if determined else 1}))
        expected.append(first.setdefault(kind, row) if determined else row)
    with job_of(tmp_path_factory.mktemp("same"), bodies, Sameness()) as job:
        found = np.where(job.copy_of < 0, np.arange(len(job)), job.copy_of)
        assert found.tolist() == expected
        assert job.distinct.tolist() == sorted(set(expected))
