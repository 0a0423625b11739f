"""Texts of prefixes: what all requests below a node have in common."""

from __future__ import annotations

import numpy as np
import pytest

from blendrun.report.schemas.prefix_text import KEPT, PrefixTexts
from tests.blend.jobs_of_lengths import small_job

WORDS = (
    "You are a helpful assistant. What is the capital of Portugal?",
    "You are a helpful assistant. What is the capital of Peru?",
    "You are a helpful assistant. Write a poem.",
    "Translate: Guten Morgen",
)


def texts() -> list[str]:
    """Of all nodes of a tree of prompts whose tokens are their words."""
    known: dict[str, int] = {}
    units = [[known.setdefault(word, len(known)) for word in text.split()] for text in WORDS]
    tree = small_job(units, [4] * len(WORDS)).tree
    found = PrefixTexts(tree, lambda number: WORDS[number])
    return [found.of(node) for node in range(len(tree))]


def test_a_prefix_is_what_its_requests_share_and_those_above_it_do_not() -> None:
    assert sorted(texts()) == sorted(
        [
            "",
            "You are a helpful assistant.",
            "What is the capital of",
            "… the capital of Portugal?",
            "… the capital of Peru?",
            "… a helpful assistant. Write a poem.",
            "Translate: Guten Morgen",
        ]
    )


@pytest.mark.parametrize(
    "one, other, shared",
    [
        ("What is Peru?", "What is Portugal?", "What is "),
        ("same", "same", "same"),
        ("same", "same here", "same"),
        ("What", "Why", ""),
        ("東京は日本の首都です。大きい", "東京は日本の首都です。古い", "東京は日本の首都です。"),
        ("漢" * 90 + "一", "漢" * 90 + "二", "漢" * 90),
    ],
)
def test_what_two_texts_share_ends_with_a_word_where_there_are_words(one: str, other: str, shared: str) -> None:
    tree = small_job([[1, 2, 3], [1, 2, 4]], [4, 4]).tree
    found = PrefixTexts(tree, lambda number: (one, other)[number])
    assert found._whole(1) == shared


def test_nobody_knows_the_text_of_a_trace_and_a_long_one_is_cut() -> None:
    tree = small_job([[1, 2, 3], [1, 2, 4]], [4, 4]).tree
    assert {PrefixTexts(tree, lambda _: "").of(node) for node in range(len(tree))} == {""}
    long = PrefixTexts(tree, lambda number: "river " * 1_000 + str(number))
    assert max(len(long.of(node)) for node in np.arange(len(tree)).tolist()) == KEPT
