"""Cutting a prompt at its template's tokens changes no id."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Prepend
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Whitespace

from blendrun.tokens import encode
from blendrun.tokens.encode import Encoder, cut_tokens
from blendrun.tokens.load import load_tokenizer
from tests.tokens.token_jobs import smollm2_folder

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
PIECES = st.one_of(
    st.sampled_from(
        [*SPECIALS, "<|im_", "|>", "<|im_start|", "\n", " ", "  ", "user\n", "'s", "12", "日本", "e\u0301"]
    ),
    st.text(max_size=8),
)


@cache
def smollm2() -> Tokenizer:
    return load_tokenizer(smollm2_folder()).encoder.backend


@given(st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=5))
def test_ids_are_those_of_the_uncut_text(texts: list[str]) -> None:
    backend = smollm2()
    encoder = Encoder(backend, SPECIALS)
    # Twice: what is remembered must be right too.
    for _ in range(2):
        ours = [ids.tolist() for ids in encoder.encode(texts, special=False)]
        assert ours == [one.ids for one in backend.encode_batch(texts, add_special_tokens=False)]


def test_the_template_of_the_small_model_is_cut() -> None:
    assert set(cut_tokens(smollm2(), SPECIALS)) == set(SPECIALS)


def byte_level(*added: AddedToken) -> Tokenizer:
    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    backend = Tokenizer(BPE(letters, []))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=True)
    backend.add_tokens(list(added))
    return backend


@pytest.mark.parametrize(
    "added",
    [
        [AddedToken("<a>", lstrip=True, normalized=False)],
        [AddedToken("<a>", rstrip=True, normalized=False)],
        [AddedToken("<a>", single_word=True, normalized=False)],
        [AddedToken("<a>", normalized=True)],
        [AddedToken("<a>", normalized=False), AddedToken("<a><b>", normalized=False)],
        [AddedToken("<a>", normalized=False), AddedToken("x<", normalized=False)],
    ],
)
def test_no_cut_where_a_token_may_reach_into_its_neighbours(added: list[AddedToken]) -> None:
    assert cut_tokens(byte_level(*added), ["<a>"]) == []


def test_no_cut_where_the_tokenizer_minds_the_place_of_a_piece() -> None:
    backend = byte_level(AddedToken("<a>", normalized=False))
    assert cut_tokens(backend, ["<a>", "<b>"]) == ["<a>"]
    backend.pre_tokenizer = Metaspace(prepend_scheme="first")
    assert cut_tokens(backend, ["<a>"]) == []


def test_a_prefix_space_is_put_before_every_piece_either_way() -> None:
    backend = byte_level(AddedToken("<a>", normalized=False))
    texts = ["x<a>y<a> z", "<a>", "", "plain"]
    ours = Encoder(backend, ["<a>"]).encode(texts, special=False)
    assert [ids.tolist() for ids in ours] == [one.ids for one in backend.encode_batch(texts, add_special_tokens=False)]


def test_a_normalizer_sees_the_same_pieces() -> None:
    backend = byte_level(AddedToken("<a>", normalized=False))
    backend.normalizer = Prepend("_")
    texts = ["x<a>y", "<a>y<a>"]
    ours = Encoder(backend, ["<a>"]).encode(texts, special=False)
    assert [ids.tolist() for ids in ours] == [one.ids for one in backend.encode_batch(texts, add_special_tokens=False)]


class Counting:
    """A backend that notes what it is asked to encode."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def encode_batch_fast(self, texts: list[str], **settings: Any) -> Any:
        self.asked += texts
        return self.backend.encode_batch_fast(texts, **settings)


def words() -> Counting:
    backend = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2, "<s>": 3, "<unk>": 4}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.add_special_tokens(["<s>"])
    return Counting(backend)


def test_a_piece_is_encoded_once() -> None:
    backend = words()
    encoder = Encoder(backend, ["<s>"])  # type: ignore[arg-type]
    encoder.encode(["<s>a b<s>c", "<s>a b<s>a"], special=False)
    encoder.encode(["<s>a b<s>c"], special=False)
    assert sorted(backend.asked) == ["<s>", "a", "a b", "c"]


def test_equal_texts_are_encoded_once_where_they_cannot_be_cut() -> None:
    backend = words()
    first, second = Encoder(backend).encode(["a b", "a b"], special=True)  # type: ignore[arg-type]
    assert backend.asked == ["a b"]
    assert first.tolist() == second.tolist() == [0, 1]


def test_memory_for_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_REMEMBERED_CHARACTERS", 100)
    encoder = Encoder(words(), ["<s>"])  # type: ignore[arg-type]
    for number in range(50):
        (ids,) = encoder.encode([f"<s>{'a ' * number}"], special=False)
        assert np.array_equal(ids, [3] + [0] * number)
        assert sum(map(len, encoder._known)) <= 200


def test_nothing_in_nothing_out() -> None:
    assert Encoder(words().backend).encode([], special=False) == []
