"""Sentences about a choice: seconds, no ratios, and none that contradicts the next."""

from __future__ import annotations

import pytest

from blendrun.names import OrderName
from blendrun.simulate.sentence import choice_sentence, time_sentence
from blendrun.text import in_money, in_one_unit, in_time

GIVEN, SORTED, BLENDED = OrderName.GIVEN, OrderName.SORTED, OrderName.BLENDED


@pytest.mark.parametrize(
    ("chosen", "seconds", "said"),
    [
        (GIVEN, {GIVEN: 100.0, SORTED: 100.9}, "File order is best here (others within 1 %)."),
        (
            GIVEN,
            {GIVEN: 100.0, BLENDED: 99.8, SORTED: 140.0},
            "File order is best here (as fast as the blend, and simpler).",
        ),
        (
            BLENDED,
            {GIVEN: 162.0, BLENDED: 144.0, SORTED: 150.0},
            "The blend is best here (next best, depth first (shared prefixes together): 2.5 min).",
        ),
        # Where both would print alike, by how much.
        (
            BLENDED,
            {GIVEN: 398.5, BLENDED: 395.0, SORTED: 500.0},
            "The blend is best here (next best, file order: 0.9 % longer).",
        ),
        (SORTED, {SORTED: 5.0}, "Depth first (shared prefixes together) is the only order simulated."),
    ],
)
def test_why_an_order_was_chosen(chosen: OrderName, seconds: dict[OrderName, float], said: str) -> None:
    assert choice_sentence(chosen, seconds) == said


def test_not_calibrated_is_said_before_the_figures() -> None:
    assert time_sentence(144, 162, calibrated=True) == "With blendrun's scheduling: 2.4 min, plain SGLang: 2.7 min."
    rough = time_sentence(0.25, 1.5, calibrated=False)
    assert rough == (
        "Not calibrated, real steps take longer. With blendrun's scheduling: 250 ms, plain SGLang: 1,500 ms."
    )


def test_times_beside_each_other_are_in_one_unit() -> None:
    assert in_one_unit([54.1, 210.0, 70.74]) == ["54.1 s", "210.0 s", "70.7 s"]
    assert in_one_unit([150, 0]) == ["2.5 min", "0.0 min"]
    assert in_one_unit([]) == []
    assert [in_time(each) for each in (0.84, 0.0012, 24.4, 144, 11_000)] == [
        *("840 ms", "1.20 ms", "24.4 s", "2.4 min", "3.1 h"),
    ]
    assert [in_money(each) for each in (0, 0.000011, 0.0038, 0.761, 1234.5)] == [
        "0.00",
        "0.000011",
        "0.0038",
        "0.76",
        "1,234.50",
    ]
