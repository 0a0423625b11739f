"""Grids of the command line: which numbers they are, and what is refused."""

from __future__ import annotations

import pytest

from blendrun.bench.grid import MAX_VALUES, parse_values
from blendrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.4", (1.4,)),
        ("1.4,0.9", (0.9, 1.4)),
        ("0.8:1.4:0.3", (0.8, 1.1, 1.4)),
        ("0.05:0.45:0.10", (0.05, 0.15, 0.25, 0.35, 0.45)),
        ("0.8:1.4:0.4", (0.8, 1.2)),
        ("2:2:1", (2.0,)),
        ("1:2:5", (1.0,)),
        ("0.9,0.8:1:0.1", (0.8, 0.9, 1.0)),
        (" 1e-1 , 2 ", (0.1, 2.0)),
    ],
)
def test_numbers_lists_and_ranges(text: str, values: tuple[float, ...]) -> None:
    assert parse_values(text, "--rho") == values


def test_the_last_value_is_reached_whatever_the_rounding() -> None:
    values = parse_values("0.8:1.4:0.05", "--rho")
    assert (len(values), values[0], values[-1]) == (13, 0.8, 1.4)
    assert parse_values("0:19.9:0.1", "--rho")[-1] == 19.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--rho takes a number or first:last:step, not ''"),
        ("much", "not 'much'"),
        ("1,,2", "not ''"),
        ("nan", "not 'nan'"),
        ("inf", "not 'inf'"),
        ("0.8:1.4", "a grid is first:last:step, for example 0.8:1.4:0.05"),
        ("0.8:1.4:0.1:2", "a grid is first:last:step"),
        ("0.8:x:0.1", "not 'x'"),
        ("0.8:inf:0.1", "not 'inf'"),
        ("0.8:1.4:0", "the step must be above 0"),
        ("0.8:1.4:-0.1", "the step must be above 0"),
        ("1.4:0.8:0.1", "the last value no less than the first"),
        ("0:1:1e-9", f"at most {MAX_VALUES} can be asked for"),
    ],
)
def test_what_is_no_grid_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_values(text, "--rho")
    assert str(error.value).startswith("--rho")
    assert message in str(error.value)
