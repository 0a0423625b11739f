"""Like errors are one sentence and a number, whatever their lines are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.errors import UsageError
from blendrun.store.failures import SHOWN_KINDS, ErrorLimit, Failures, kind_of, shown


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("the prompt has 9,012 tokens; at most 8,185 fit", "the prompt has 81 tokens; at most 8,185 fit"),
        ("custom_id 'ab-c' is already that of line 3 of x", "custom_id 'd e' is already that of line 40 of x"),
        ('a wrong "word"', 'a wrong "other one"'),
        ("byte 0xff at byte offset 104", "byte 0xe5 at byte offset 9"),
        ("not -1e-7", "not 2.5"),
    ],
)
def test_messages_that_differ_in_numbers_or_what_is_quoted_are_of_one_kind(first: str, second: str) -> None:
    assert kind_of(first) == kind_of(second)


def test_messages_that_name_another_field_are_of_another_kind() -> None:
    assert kind_of("`max_tokens` must be 1 or more") != kind_of("`n` must be 1 or more")
    assert kind_of("the model's context") != kind_of("the model's file"), "an apostrophe opens no quotation"


def test_a_kind_is_told_once_with_its_place_and_counted_after_that() -> None:
    failures = Failures()
    told = [failures.add("invalid_json", f"not JSON at column {place}", ("jobs", place)) for place in range(3, 9)]
    assert told == ["jobs:3: invalid_json: not JSON at column 3", *[None] * 5]
    assert failures.add("engine_error", "no", ("more", 1)) == "more:1: engine_error: no"
    assert [failure.text() for failure in failures.kinds()] == [
        "6x invalid_json, first at jobs:3: not JSON at column 3",
        "engine_error, at more:1: no",
    ]
    assert failures.codes() == {"invalid_json": 6, "engine_error": 1}
    assert failures.total == 7


def test_the_screen_shows_ten_kinds_and_the_number_of_the_rest() -> None:
    failures = Failures()
    words = [chr(ord("a") + place) for place in range(15)]
    told = [failures.add("engine_error", word, ("jobs", 1)) for word in words]
    assert sum(text is not None for text in told) == SHOWN_KINDS == 10
    assert told[9] is not None and told[9].endswith("further kinds of error are only counted")
    assert shown(failures.kinds())[-1] == "5x other errors of 5 kinds"
    assert len(shown(failures.kinds())) == 11


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text(max_size=40)), max_size=300))
def test_no_line_is_lost_to_the_counts_and_their_size_is_bounded(errors: list[tuple[str, str]]) -> None:
    failures = Failures()
    for place, (code, message) in enumerate(errors):
        failures.add(code, message, ("jobs", place))
    kinds = failures.kinds()
    assert sum(kind.count for kind in kinds) == failures.total == len(errors)
    assert sum(failures.codes().values()) == len(errors)
    assert len(kinds) <= 202
    assert all(len(kind.message) <= 240 and "\n" not in kind.message for kind in kinds)


def test_messages_that_all_differ_are_kept_up_to_a_bound() -> None:
    failures = Failures()
    for number in range(2000):
        failures.add("engine_error", "".join(chr(97 + int(digit)) for digit in str(number)), ("jobs", number))
    kinds = failures.kinds()
    assert len(kinds) == 201
    assert kinds[0].message == "other messages"
    assert kinds[0].count == 1800


@pytest.mark.parametrize(
    ("text", "lines", "allowed"), [("0", 10, 0), ("7", 10, 7), ("25%", 10, 2), ("2.5 %", 1000, 25), ("100%", 3, 3)]
)
def test_a_limit_is_a_number_of_lines_or_a_share_of_them(text: str, lines: int, allowed: int) -> None:
    assert ErrorLimit.parse(text).allowed(lines) == allowed


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "101%", "many", "1e3", "½%", "٣", "9" * 400])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-errors"):
        ErrorLimit.parse(text)
