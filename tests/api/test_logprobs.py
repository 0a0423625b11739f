"""Log probabilities of prompts that begin alike: asked in parts, the same when they are put together."""

from __future__ import annotations

import random
from typing import Any

import pytest

import blendrun
from blendrun.python_logprobs import parted, put_together

SHARED = list(range(40))


def body(ids: Any, **more: Any) -> dict[str, Any]:
    return {"input_ids": ids, "sampling_params": {}, "return_logprob": True, "logprob_start_len": 0, **more}


def answered(asked: dict[str, Any]) -> dict[str, Any]:
    """As SGLang does: a value for each token from the start on, of what is before it; the first has none."""
    ids, start = asked["input_ids"], asked["logprob_start_len"]
    values = [None, *(hash(tuple(ids[: place + 1])) for place in range(start + 1, len(ids)))]
    found: dict[str, list[Any]] = {
        "input_token_logprobs": [[value, token, None] for value, token in zip(values, ids[start:], strict=True)]
    }
    if asked.get("top_logprobs_num"):
        found["input_top_logprobs"] = [None if value is None else [[value, 1, None]] for value in values]
    return {"text": "x", "meta_info": {"prompt_tokens": len(ids), **found}}


def test_whatever_prompts_share() -> None:
    draw = random.Random(7)
    for _ in range(100):
        stems = [[draw.randrange(3) for _ in range(draw.randrange(60))] for _ in range(4)]
        bodies = [
            body(draw.choice(stems) + [draw.randrange(3) for _ in range(draw.randrange(1, 30))], top_logprobs_num=top)
            for top in (draw.choice((0, 2)) for _ in range(draw.randrange(1, 12)))
        ]
        asked, sources = parted(bodies)
        found = [answered(each) for each in asked]
        assert put_together(found, sources) == []
        assert found == [answered(each) for each in bodies]


def test_each_is_asked_from_where_it_parts_with_the_one_before() -> None:
    bodies = [body([*SHARED, 9, 9]), body([*SHARED, 7]), body([*SHARED, 9, 8]), body([*SHARED, 7]), body([1, 2, 3])]
    asked, sources = parted(bodies)
    assert [each["logprob_start_len"] for each in asked] == [40, 0, 39, 40, 0]
    assert {place: source[:2] for place, source in sources.items()} == {3: (1, 41), 2: (3, 40), 0: (2, 41)}


@pytest.mark.parametrize(
    "other",
    [
        {"top_logprobs_num": 5},
        {"token_ids_logprob": [1]},
        {"return_text_in_logprobs": True},
        {"lora_path": "x"},
        {"return_logprob": False},
        {"logprob_start_len": 3},
        {"sampling_params": {"n": 2}},
        {"input_ids": None},
        {"input_ids": [*SHARED, -1]},
        {"input_ids": [*SHARED, 1 << 70]},
        {"input_ids": []},
    ],
)
def test_those_that_ask_for_something_else_stay_as_they_are(other: dict[str, Any]) -> None:
    bodies = [body(SHARED), body(SHARED) | other]
    assert parted(bodies) == (bodies, {})


def test_one_whose_source_has_none_is_asked_as_it_is_and_so_are_those_behind_it() -> None:
    asked, sources = parted([body([*SHARED, 1]), body([*SHARED, 2]), body([*SHARED, 2, 3])])
    found = [answered(each) for each in asked]
    found[0] = {"error": {"code": "x", "message": "y"}}
    assert put_together(found, sources) == [1, 2]


@pytest.mark.parametrize("values", [None, [], [[None, 1, None]] * 41, "x"])
def test_an_engine_that_answers_otherwise_is_asked_again(values: Any) -> None:
    asked, sources = parted([body([*SHARED, 1]), body([*SHARED, 2])])
    found = [answered(each) for each in asked]
    found[1]["meta_info"]["input_token_logprobs"] = values
    assert put_together(found, sources) == [1]


def test_a_call_asks_in_parts_and_again_what_that_has_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, starts, error = [[*SHARED, end] for end in (3, 1, 2)], list[list[int]](), {"error": {"message": "x"}}

    def answers(lines: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        starts.append([each["logprob_start_len"] for _, each in lines])
        first = len(starts) == 1
        return [error if first and each["input_ids"] == prompts[1] else answered(each) for _, each in lines]

    with blendrun.Engine("any", options={"engine": "replay"}) as engine:
        monkeypatch.setattr(engine, "_answers", answers)
        with pytest.raises(blendrun.RequestsFailedError, match="1 of 3 requests failed; request 1: x") as failed:
            engine.generate(input_ids=prompts, return_logprob=True, logprob_start_len=0)
        assert starts == [[39, 0, 39], [0, 0]]
        assert failed.value.answers == [answered(body(prompts[0])), error, answered(body(prompts[2]))]
        found = engine.generate(input_ids=prompts, return_logprob=True, logprob_start_len=0)
        assert found == [answered(body(each)) for each in prompts]
        assert len(starts) == 3
