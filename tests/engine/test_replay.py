"""The replay engine: keeps the engine's interface without a model, with the lengths and failures it is told."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.replay import ReplayEngine
from blendrun.errors import UsageError
from blendrun.events import ignore

URL = "/v1/completions"


def item(row: int, length: int | None = None, **body: object) -> WorkItem:
    return WorkItem(row, URL, orjson.dumps({"prompt": f"prompt {row}", **body}), length)


async def answers(engine: ReplayEngine, *items: WorkItem) -> list[Result]:
    await engine.start(ignore)
    for one in items:
        await engine.submit(one)
    await engine.close_input()
    found = [result async for result in engine.results()]
    await engine.stop()
    await engine.stop()
    return found


def replay(*items: WorkItem, **arguments: object) -> list[Result]:
    return asyncio.run(answers(ReplayEngine.from_arguments(arguments), *items))


def test_what_it_says_of_itself() -> None:
    info = asyncio.run(ReplayEngine.from_arguments({"slots": 7}).start(ignore))
    assert isinstance(info, EngineInfo)
    assert (info.engine, info.max_running, info.kv_tokens) == ("replay", 7, 7 * info.context_length)


def test_every_item_comes_back_once_and_the_same_each_time() -> None:
    items = [item(row) for row in range(100)]
    first, second = replay(*items, slots=8), replay(*items, slots=8)
    assert first == second
    assert sorted(result.row for result in first) == list(range(100))
    assert [result.row for result in first] != list(range(100)), "the shorter ones are done sooner"
    assert replay() == []


def test_an_answer_is_marked_as_none_and_counts_its_tokens() -> None:
    (result,) = replay(item(3, 20, n=2))
    body = orjson.loads(result.body)
    assert body["choices"][1]["text"] == "[replay] no model was run"
    assert (result.status_code, result.error_code, result.finish_reasons) == (200, None, ("stop", "stop"))
    assert result.usage.output == body["usage"]["completion_tokens"] == 40
    assert result.usage.prompt == body["usage"]["prompt_tokens"] == 1 + len("prompt 3") // 4
    assert body["usage"]["total_tokens"] == result.usage.prompt + 40


def test_the_bound_of_the_request_cuts_the_stated_length() -> None:
    (result,) = replay(item(0, 100, max_tokens=7))
    assert result.usage.output == 7
    assert result.finish_reasons == ("length",)
    assert orjson.loads(result.body)["choices"][0]["finish_reason"] == "length"


def test_the_virtual_clock_orders_completions_by_length() -> None:
    rows = [result.row for result in replay(item(0, 300), item(1, 100), item(2, 200), slots=3)]
    assert rows == [1, 2, 0]
    # With one lane nothing can overtake.
    assert [result.row for result in replay(item(0, 300), item(1, 100), item(2, 200), slots=1)] == [0, 1, 2]


def test_real_time_takes_as_long_as_it_says() -> None:
    begun = time.monotonic()
    replay(item(0, 50), item(1, 50), slots=2, decode_rate=50, real_time=10)
    assert time.monotonic() - begun >= 0.1


def test_results_come_without_waiting_for_the_end_of_input() -> None:
    async def feed() -> int:
        engine = ReplayEngine.from_arguments({"slots": 4})
        await engine.submit(item(0))
        results = engine.results()
        return (await anext(results)).row

    assert asyncio.run(asyncio.wait_for(feed(), 5)) == 0


def test_fail_every_fails_those_rows_whatever_the_order() -> None:
    failed = [
        result for result in replay(*(item(row) for row in (5, 0, 2, 1, 4, 3)), fail_every=3) if result.error_code
    ]
    assert sorted(result.row for result in failed) == [2, 5]
    assert {(result.status_code, result.error_code) for result in failed} == {(500, "engine_error")}
    assert orjson.loads(failed[0].body)["error"]["code"] == "engine_error"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slot": 3}, "unknown field `slot`"),
        ({"slots": 0}, "slots and rates must be positive"),
        ({"slots": 2.5}, "Expected `int`"),
        ({"decode_rate": 0}, "slots and rates must be positive"),
        ({"real_time": -1}, "must be zero or more"),
        ({"fail_every": -1}, "must be zero or more"),
        ({"prefill_rate": "fast"}, "Expected `float`"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ReplayEngine.from_arguments(arguments)
