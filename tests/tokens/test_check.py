"""Prompts that no engine takes are found with the tokenizer alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.errors import ErrorCode
from blendrun.tokens.build import build_prompts
from blendrun.tokens.check import RefusedPrompts, refused_prompts
from blendrun.tokens.load import load_engine_tokenizer, load_tokenizer
from blendrun.tokens.tokenizer import PromptTokenizer
from tests.tokens.token_jobs import chat, completion, make_job, word_tokenizer

VAST = "`reasoning_effort` cannot be 'vast'"


def check(folder: Path, lines: list[dict[str, Any]], context: int, longest: int) -> RefusedPrompts:
    job = make_job(folder, lines)
    tokenizer = load_tokenizer(word_tokenizer(folder / "model"))
    tokenized = build_prompts(job, tokenizer, context_length=context, store_folder=folder / "tokens")
    return refused_prompts(job, tokenizer, tokenized, longest)


def test_each_row_that_cannot_run_comes_once_with_its_reason(tmp_path: Path) -> None:
    lines = [
        completion("good", "w1 w2 w3"),
        completion("over the context", " ".join(["w1"] * 30)),
        chat("odd effort", reasoning_effort="vast"),
        completion("between", " ".join(["w1"] * 17)),
        completion("just fits", " ".join(["w1"] * 15)),
        chat("odd variable", chat_template_kwargs={"messages": []}),
    ]
    refused = check(tmp_path, lines, context=20, longest=16)
    assert refused.rows.tolist() == [1, 2, 3, 5]
    errors = [refused.error(row) for row in refused.rows.tolist()]
    long, request = ErrorCode.CONTEXT_LENGTH_EXCEEDED, ErrorCode.INVALID_REQUEST
    assert [error.code for error in errors] == [long, request, long, request]
    assert [error.custom_id for error in errors] == ["over the context", "odd effort", "between", "odd variable"]
    assert errors[0].message == "the prompt has 31 tokens; the context of this model leaves room for 16"
    assert errors[1].message == VAST


def test_a_sound_job_has_none(tmp_path: Path) -> None:
    assert not len(check(tmp_path, [completion("a", "w1"), chat("b")], context=20, longest=16).rows)


def test_reasons_can_be_had_for_more_rows_than_messages_are_kept(tmp_path: Path) -> None:
    lines = [chat(f"id {row}", reasoning_effort="vast") for row in range(150)]
    refused = check(tmp_path, lines, context=20, longest=16)
    assert len(refused.rows) == 150
    assert {refused.error(row).message for row in refused.rows.tolist()} == {VAST}


def test_an_exception_that_nobody_foresaw_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PromptTokenizer.render

    def render(self: PromptTokenizer, endpoint: Any, body: Any, files: Any) -> Any:
        return 1 / 0 if body.get("user") == "odd" else real(self, endpoint, body, files)

    monkeypatch.setattr(PromptTokenizer, "render", render)
    refused = check(tmp_path, [chat("a"), chat("b", user="odd"), chat("c")], context=20, longest=16)
    assert refused.rows.tolist() == [1]
    assert "ZeroDivisionError" in refused.error(1).message


def embedding(custom_id: str, given: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "url": "/v1/embeddings", "body": {"input": given}}


def test_of_a_line_of_many_texts_each_must_fit_and_not_all_together(tmp_path: Path) -> None:
    lines = [
        embedding("ten that fit", [" ".join(["w1"] * 8)] * 10),
        embedding("one of two does not", ["w1", " ".join(["w1"] * 17)]),
        embedding("ids", [[11] * 10, [12] * 12]),
        embedding("far too long", ["w1", " ".join(["w1"] * 30)]),
    ]
    refused = check(tmp_path, lines, context=20, longest=16)
    assert refused.rows.tolist() == [1, 3]
    assert [str(refused.error(row).message).split(" tokens")[0] for row in (1, 3)] == [
        *("the prompt has 18", "the prompt has 31")
    ]


def test_all_of_a_lines_texts_are_planned_as_far_as_there_is_room(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(word_tokenizer(tmp_path / "model"))
    pair = {"custom_id": "p", "url": "/v1/rerank", "body": {"query": "w1 w2", "documents": ["w3"]}}
    items = {"query": "w1 w2", "items": [" w3", " w4", " w4"], "label_token_ids": [5]}
    score = {"custom_id": "s", "url": "/v1/score", "body": items}
    lines = [
        embedding("two", ["w1 w2", "w3"]),
        embedding("more than there is", [f"w{n} w2 w3" for n in range(10)]),
        pair,
        score,
    ]
    job = make_job(tmp_path, lines)
    tokenized = build_prompts(job, tokenizer, context_length=20, store_folder=tmp_path / "tokens")
    prompts = tokenized.prompts
    ids = [prompts.units[begin:end].tolist() for begin, end in pairwise(prompts.offsets.tolist())]
    # Of one that begins like the one before it, what is computed: all of it but what is cached, and the last.
    assert ids[0] == [1, 5, 6, 7] and ids[3] == [1, 5, 6, 7, 8, 8]
    assert prompts.prompt_tokens.tolist() == [4, 19, 3, 6] and tokenized.longest.tolist() == [3, 4, 3, 4]
    # This tokenizer has nothing to put between two texts.
    assert ids[2] == [5, 6, 7]
    # One step each, and nothing to learn of it.
    assert prompts.bound.tolist() == [1] * 4 and prompts.known.all()
    assert tokenized.logprobs.tolist() == [False, False, True, True]
    # Requests to the engine, tokens of the first, and those that the next ones wait for; a line alone asks for one.
    assert prompts.parts is not None
    found = prompts.parts.count.tolist(), prompts.parts.first.tolist(), prompts.parts.common.tolist()
    assert found == ([2, 10, 1, 3], [2 + 1, 4, 0, 4], [1, 1, 0, 3])
    assert prompts.take(np.array([3])).parts.count.tolist() == [3]  # type: ignore[union-attr]
    alone = build_prompts(job, tokenizer, context_length=20, rows=np.array([2]), store_folder=tmp_path / "tokens")
    assert alone.prompts.parts is None


def test_an_engine_that_keeps_nothing_reads_every_item_whole(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "model")
    items = {"query": "w1 w2", "items": [" w3", " w4"], "label_token_ids": [5]}
    job = make_job(tmp_path, [{"custom_id": name, "url": "/v1/score", "body": items} for name in "ab"])
    for arguments, bidirectional in (({"disable_radix_cache": True}, False), ({}, True)):
        tokenizer = load_engine_tokenizer(folder, arguments, bidirectional=bidirectional)
        prompts = build_prompts(job, tokenizer, context_length=20, store_folder=tmp_path / "tokens").prompts
        assert prompts.units.tolist() == [1, 5, 6, 7, 1, 5, 6, 8] * 2 and len(set(prompts.root.tolist())) == 2
        assert prompts.parts is not None and not prompts.parts.common.any()
