"""Pictures in a plan: their size by their first bytes, their tokens by their processor's rule, their place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.tokens.load import load_engine_tokenizer, load_tokenizer
from blendrun.tokens.picture_rules import ProcessorRule, QwenRule
from blendrun.tokens.picture_size import picture_size
from blendrun.tokens.tokenizer import MEDIA_TOKENS, PromptTokenizer, RenderedPrompt
from tests.tiny_vision import data_url, picture
from tests.tokens.token_jobs import CHAT, WORD_TEMPLATE, word_tokenizer

RULE = QwenRule("w40", 44, side=28, smallest=56 * 56, largest=28 * 28 * 1280)
# A word stands for a picture.
TEMPLATE = WORD_TEMPLATE.replace(
    "{{ message.content }}",
    "{% for part in message.content %}{{ part.text if part.type == 'text' else ' w40 ' }}{% endfor %}",
)
PROCESSOR = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "max_pixels": 78400}
# 3 by 2 squares of 28 pixels.
CAT, DOG = picture(1, 84, 56), picture(2, 84, 56)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (257, 1025)])
def test_a_picture_s_size_is_in_its_first_bytes(form: str, size: tuple[int, int]) -> None:
    assert picture_size(picture(0, *size, form=form)) == size


def test_of_webp_all_three_kinds() -> None:
    from PIL import Image

    for options in ({"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}):
        file = io.BytesIO()
        Image.new("RGB", (300, 77)).save(file, "WEBP", **options)
        assert picture_size(file.getvalue()) == (300, 77)


@given(st.binary(max_size=60), st.sampled_from([b"", CAT, picture(1, 9, 9, "JPEG"), picture(1, 9, 9, "WEBP")]))
def test_bytes_that_are_no_picture_have_no_size_or_some(more: bytes, begun: bytes) -> None:
    for data in (more, begun[: len(more)] + more):
        size = picture_size(data)
        assert size is None or len(size) == 2


@pytest.mark.runtime
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_rule_is_transformers_own(width: int, height: int) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    try:
        tall, wide = smart_resize(height, width, RULE.side, RULE.smallest, RULE.largest)
    except ValueError:
        assert RULE.tokens(width, height) == 0
    else:
        assert RULE.tokens(width, height) == tall * wide // RULE.side**2


class TestPrompts:
    @pytest.fixture
    def tokenizer(self, tmp_path: Path) -> PromptTokenizer:
        folder = word_tokenizer(tmp_path / "model", TEMPLATE)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "image_token_id": 44}))
        return load_tokenizer(folder)

    def rendered(
        self, tokenizer: PromptTokenizer, *parts: str | bytes, files: Path | None = None, **fields: Any
    ) -> RenderedPrompt:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str) and not part.startswith("file:")
            else {"type": "image_url", "image_url": {"url": part if isinstance(part, str) else data_url(part)}}
            for part in parts
        ]
        body = {"messages": [{"role": "user", "content": content}], **fields}
        return tokenizer.render(ENDPOINTS[CHAT], body, files)

    def ids(self, tokenizer: PromptTokenizer, *parts: str | bytes, files: Path | None = None) -> list[int]:
        found: list[int] = tokenizer.encode([self.rendered(tokenizer, *parts, files=files)])[0].tolist()
        return found

    def test_a_picture_stands_where_its_token_stood(self, tokenizer: PromptTokenizer) -> None:
        ids = self.ids(tokenizer, "w1 w2 ", CAT, " w3")
        assert ids[:4] == [1, 2, 5, 6] and ids[-2:] == [7, 3]
        (stand_in,) = set(ids[4:-2])
        assert len(ids[4:-2]) == 6 and stand_in >= 1 << 30

    def test_equal_pictures_are_equal_tokens_and_others_are_not(self, tokenizer: PromptTokenizer) -> None:
        one, same, other = (self.ids(tokenizer, "w1", each) for each in (CAT, CAT, DOG))
        assert one == same != other
        assert one[:3] == other[:3]

    def test_a_file_counts_where_it_may_be_read(self, tokenizer: PromptTokenizer, tmp_path: Path) -> None:
        (tmp_path / "cat.png").write_bytes(CAT)
        url = f"file://{tmp_path}/cat.png"
        assert self.ids(tokenizer, url, files=tmp_path) == self.ids(tokenizer, CAT)
        for files in (None, tmp_path / "model"):
            prompt = self.rendered(tokenizer, url, files=files)
            assert prompt.media and not prompt.pictures

    @pytest.mark.parametrize(
        ("parts", "fields"),
        [
            ((CAT, b"no picture"), {}),
            ((CAT, "w1 w40"), {}),
            ((CAT,), {"mm_processor_kwargs": {"max_pixels": 1}}),
            ((CAT,), {"images_config": {"max_dynamic_patch": 1}}),
        ],
    )
    def test_otherwise_all_of_a_prompt_is_an_estimate(
        self, tokenizer: PromptTokenizer, parts: tuple[str | bytes, ...], fields: dict[str, Any]
    ) -> None:
        prompt = self.rendered(tokenizer, *parts, **fields)
        assert prompt.media and not prompt.pictures
        assert len(tokenizer.encode([prompt])[0]) > MEDIA_TOKENS["image"]

    def test_sizes_are_bounded_by_the_processor_s_file(self, tokenizer: PromptTokenizer) -> None:
        assert isinstance(tokenizer.picture_rule, QwenRule) and tokenizer.picture_rule.largest == 78400
        assert tokenizer.picture_rule.tokens(2800, 2800) == 100

    @pytest.mark.parametrize(
        ("images", "bounds"),
        [
            ({"max_pixels": 784 * 9}, (3136, 784 * 9)),
            ({"min_pixels": 784 * 9, "max_pixels": None}, (784 * 9, 78400)),
            ({"size": {"shortest_edge": 784, "longest_edge": 7840}}, (784, 7840)),
            ({}, (3136, 78400)),
            ({"size": {"longest_edge": 7840}}, None),
            ({"patch_size": 16}, None),
        ],
    )
    def test_what_the_engine_gives_the_processor_counts(
        self, tokenizer: PromptTokenizer, tmp_path: Path, images: dict[str, Any], bounds: tuple[int, int] | None
    ) -> None:
        told = load_engine_tokenizer(tmp_path / "model", {"mm_process_config": {"image": images, "video": {}}})
        rule = told.picture_rule
        found = (rule.smallest, rule.largest) if isinstance(rule, QwenRule) else None
        assert found == bounds
        assert (told.identity == tokenizer.identity) == (not images), "tokens of other prompts are not taken for these"

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"}),
            ("preprocessor_config.json", {"do_resize": False}),
            ("preprocessor_config.json", {"patch_size": "fourteen"}),
            ("preprocessor_config.json", {"size": [1, 2], "max_pixels": 0.5}),
            ("config.json", {"image_token_id": None}),
        ],
    )
    def test_of_other_processors_the_rule_is_not_known_here(
        self, tokenizer: PromptTokenizer, tmp_path: Path, name: str, fields: dict[str, Any]
    ) -> None:
        path = tmp_path / "model" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        assert isinstance(load_tokenizer(tmp_path / "model").picture_rule, ProcessorRule)
