"""Admission by expected lengths: what the plug-in counts, on SGLang's own adder and cache."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.reserve import Reservation
from tests.engine.radix_cache import Cache

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module", autouse=True)
def settings(tiny_model: Path) -> Iterator[None]:
    """SGLang's settings, which its adder looks into, for these tests only."""
    from sglang.srt.runtime_context import create_context, use_context
    from sglang.srt.server_args import ServerArgs

    with use_context(create_context(ServerArgs(model_path=str(tiny_model), device="cpu"), role="test")):
        yield


SHARED = list(range(100, 140))


def own(number: int, tokens: int = 10) -> list[int]:
    return [1000 * (number + 1) + place for place in range(tokens)]


class Step:
    """One pass of SGLang's admission with the plug-in's reservation. running: what decodes already."""

    def __init__(self, cache: Cache, running: Sequence[Any] = ()) -> None:
        from sglang.srt.managers.schedule_policy import PrefillAdder

        self.original = PrefillAdder.add_one_req
        self.hooks = Reservation()
        self.cache = cache
        self.adder = PrefillAdder(1, cache.tree, cache.pool, SimpleNamespace(reqs=running), 1.0, 100_000, None)
        self.hooks.drop_guess(None, self.adder)

    def admit(self, prompt: list[int], expected: int, most: int = 5000) -> Any:
        """The newcomer, or None where it was left waiting."""
        request = self.cache.request(prompt, most, Planned(0, expected, 0))
        self.hooks.admit(self.original, self.adder, request, False, None)
        return request if request in self.adder.can_run_list else None


def admitted(step: Callable[[], Step], prompt: list[int]) -> list[int]:
    """Of the expected answers from 500 to 699 tokens, those that a newcomer comes in with."""
    return [expected for expected in range(500, 700) if step().admit(prompt, expected)]


# Of 1,000 tokens, each newcomer's admission keeps one aside (SGLang's page), and the last token that it answers takes
# no place. So behind one that has ended, a prompt of 400 may be answered with 599 tokens: 400 + 598 + 2.
SECOND = own(1, 400)
MOST = list(range(500, 600))


def test_alone_a_request_comes_in_whatever_is_expected_of_it() -> None:
    assert Step(Cache()).admit(SECOND, 4000)


def test_what_ends_before_gives_its_prompt_and_answer_back() -> None:
    def behind_a_short_one() -> Step:
        step = Step(Cache())
        assert step.admit(own(0, 300), expected=10)
        return step

    assert admitted(behind_a_short_one, SECOND) == MOST


def test_a_prefix_that_it_alone_holds_is_given_back_too() -> None:
    def behind_one_with_a_cached_prefix() -> Step:
        cache = Cache()
        cache.serve(SHARED + own(2), own(3), Planned(0, 10, len(SHARED)))
        step = Step(cache)
        first = step.admit(SHARED + own(0, 260), expected=10)
        assert first.prefix_len == len(SHARED)
        return step

    assert admitted(behind_one_with_a_cached_prefix, SECOND) == MOST


@pytest.mark.parametrize("answered", [1, 4, 9])
def test_a_row_that_decodes_gives_back_what_it_took_and_has_answered(answered: int) -> None:
    def behind_one_that_decodes() -> Step:
        cache = Cache()
        first = Step(cache).admit(own(0, 300), expected=10)
        # As it stands some steps later: its last token has no place in the pool yet.
        first.output_ids = array("q", [7] * answered)
        cache.pool.alloc(300 + answered - 1)
        return Step(cache, [first])

    # One that was admitted in an earlier step keeps no page aside any more.
    assert admitted(behind_one_that_decodes, SECOND) == [*MOST, 600]


def test_a_retracted_row_gives_back_what_it_took_when_it_came_in_again() -> None:
    def behind_one_that_came_back() -> Step:
        cache = Cache()
        first = cache.request(own(0, 300), 5000, Planned(0, 10, 0))
        first.output_ids = array("q", [7] * 4)
        first.init_next_round_input(cache.tree)
        step = Step(cache)
        step.hooks.admit(step.original, step.adder, first, False, None)
        first.output_ids = array("q", [7] * 6)
        cache.pool.alloc(305)
        return Step(cache, [first])

    assert admitted(behind_one_that_came_back, SECOND) == [*MOST, 600]


def test_an_overdue_row_is_believed_to_run_on() -> None:
    def beside_an_overdue_one(most: int) -> Step:
        cache = Cache()
        first = Step(cache).admit(own(0, 300), expected=10, most=most)
        first.output_ids = array("q", [7] * 10)
        cache.pool.alloc(309)
        return Step(cache, [first])

    # Believed to end 16 steps later, or where it must; both come before the newcomer needs the room.
    assert admitted(lambda: beside_an_overdue_one(5000), SECOND) == [*MOST, 600]
    assert admitted(lambda: beside_an_overdue_one(11), SECOND) == [*MOST, 600]
    # What both hold when the first is believed to end is too much: 309 + 16 + 665 + 16 = 1,006.
    assert not beside_an_overdue_one(5000).admit(own(1, 665), 30)
    assert beside_an_overdue_one(11).admit(own(1, 665), 30)


class TestAPromptThatIsHalfIn:
    """Its next chunk in a pool without a free token: SGLang would run it, for which there is no memory, and end."""

    def step(self, free: int, decode: bool = True) -> tuple[Step, Any, Any]:
        cache = Cache()
        first = Step(cache).admit(own(0, 300), expected=10)
        half = cache.request(own(1, 400), 100, Planned(0, 10, 0))
        cache.pool.alloc(cache.pool.available_size() - free)
        step = Step(cache, [first] if decode else [])
        step.adder.rem_chunk_tokens = 64
        left = step.hooks.go_on(type(step.adder).add_chunked_req, step.adder, half)
        return step, half, left

    def test_waits_while_others_decode_and_keeps_out_what_comes_behind(self) -> None:
        step, half, left = self.step(free=0)
        assert left is half
        assert step.adder.can_run_list == []
        assert step.admit(own(2, 1), expected=1) is None

    @pytest.mark.parametrize(("free", "tokens"), [(30, 30), (200, 64)])
    def test_goes_on_with_what_there_is_room_for(self, free: int, tokens: int) -> None:
        step, half, left = self.step(free)
        assert left is half
        assert step.adder.can_run_list == [half]
        assert half.extend_end - half.prefix_len == tokens

    def test_is_not_kept_waiting_where_nothing_can_make_room(self) -> None:
        step, half, _ = self.step(free=0, decode=False)
        assert step.adder.can_run_list == [half]
