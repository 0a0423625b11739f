"""Prompts with pictures are those of the model's own processor, token for token; and of SGLang's input processing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from blendrun.models.processor import Placeholders, Processor, load, placeholders_of, texts_of
from blendrun.tokens.chat import conversation
from blendrun.tokens.load import load_engine_tokenizer
from blendrun.tokens.picture_rules import ProcessorRule
from blendrun.tokens.tokenizer import PromptTokenizer, RenderedPrompt
from tests.tiny_vision import data_url, picture
from tests.tokens.seeing_models import FAMILIES, write_seeing_model
from tests.tokens.token_jobs import CHAT

pytestmark = pytest.mark.runtime

PICTURES = [picture(seed, *size) for seed, size in enumerate([(120, 80), (300, 300), (33, 20), (90, 500)])]
# Parts of a message: texts, and numbers of pictures.
TALKS: list[tuple[str | int, ...]] = [
    *((number, "What is this?") for number in range(len(PICTURES))),
    ("See\n", 0, "\n\nand then"),
    (2, 3, " two"),
    ("a ", 1, "b ", 0, ""),
]
# Each with one picture alone.
ALONE = TALKS[: len(PICTURES)]
# What an engine may be told to give a family's processor; to some SGLang gives nothing.
GIVEN: dict[str, dict[str, Any]] = {
    "gemma3": {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 32, "pan_and_scan_min_ratio_to_activate": 1.1},
    "pixtral": {"size": {"longest_edge": 128}},
    "idefics3": {"size": {"longest_edge": 128}},
}
UNHEARD = frozenset(("idefics3",))


class Here(Processor):
    """The processor in this process: a start of one for each family would take ten seconds."""

    def __init__(self, folder: Path, images: str) -> None:
        self.folder, self.images, self.own = folder, images, load(folder)

    def placeholders(self) -> Placeholders:
        return placeholders_of(self.own)

    def texts(self, sizes: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
        return tuple(texts_of(self.own, sizes, orjson.loads(self.images)))


def rule_of(tokenizer: PromptTokenizer) -> ProcessorRule:
    assert isinstance(tokenizer.picture_rule, ProcessorRule)
    return tokenizer.picture_rule


def body_of(talk: tuple[str | int, ...]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(PICTURES[part])}}
        for part in talk
    ]
    return {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}]}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PromptTokenizer]:
    folder = tmp_path_factory.mktemp("seeing")
    return {family: tokenizer_of(write_seeing_model(folder / family, family)) for family in FAMILIES}


def tokenizer_of(folder: Path, images: dict[str, Any] | None = None) -> PromptTokenizer:
    """As an engine has it that gives its processor these arguments."""
    tokenizer = load_engine_tokenizer(folder, {"mm_process_config": {"image": images or {}}})
    rule = rule_of(tokenizer)
    return replace(tokenizer, picture_rule=replace(rule, processor=Here(folder, rule.processor.images)))


def ours(tokenizer: PromptTokenizer, prompt: RenderedPrompt) -> list[int]:
    """Ids as the processor has them, all pictures alike."""
    ids: list[int] = tokenizer.encode([prompt])[0].tolist()
    return [prompt.mark_id if token >= 1 << 30 else token for token in ids]


def rendered(tokenizer: PromptTokenizer, talk: tuple[str | int, ...]) -> RenderedPrompt:
    return tokenizer.render(ENDPOINTS[CHAT], body_of(talk))


def plain(tokenizer: PromptTokenizer, talk: tuple[str | int, ...]) -> str:
    """The prompt as the template renders it, a picture's place one mark."""
    assert tokenizer.template is not None
    told = conversation(body_of(talk), tokenizer.template.content_format)
    return tokenizer.template.render(told.messages, None, {**tokenizer.special_tokens, **told.variables})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_the_processor_s_own(tokenizers: dict[str, PromptTokenizer], family: str) -> None:
    tokenizer = tokenizers[family]
    here = rule_of(tokenizer).processor
    assert isinstance(here, Here)
    for talk in TALKS:
        prompt, text = rendered(tokenizer, talk), plain(tokenizer, talk)
        images = [Image.open(io.BytesIO(PICTURES[part])) for part in talk if isinstance(part, int)]
        made = here.own(text=[text], images=images, add_special_tokens=prompt.special)
        assert ours(tokenizer, prompt) == list(made["input_ids"][0]), talk
        assert prompt.pictures and prompt.estimated == (family == "llava" and len(images) > 1)


def test_it_is_asked_in_a_process_of_its_own_once_for_a_size(
    tokenizers: dict[str, PromptTokenizer], tmp_path: Path
) -> None:
    here = rule_of(tokenizers["pixtral"]).processor
    asked = Processor(here.folder)
    words = asked.placeholders()
    assert words == here.placeholders() == Placeholders("[IMG]", "[IMG]")
    for sizes in (((120, 80),), ((33, 20), (90, 500))):
        assert asked.texts(sizes) == here.texts(sizes)
        assert asked.texts(sizes) is asked.texts(sizes)
    # More than is worth a blank picture is not known; the next one is.
    for size in ((50_000, 50_000), (1, 201), (0, 3)):
        assert asked.texts((size,)) is None
    assert asked.texts(((16, 16),)) == ("[IMG][IMG_END]",)


def test_prompts_are_those_of_sglangs_input_processing(tokenizers: dict[str, PromptTokenizer]) -> None:
    def asked_of(
        tokenizer: PromptTokenizer, given: dict[str, Any], talks: list[tuple[str | int, ...]]
    ) -> dict[str, Any]:
        texts = [plain(tokenizer, talk) for talk in talks]
        images = [[data_url(PICTURES[part]) for part in talk if isinstance(part, int)] for talk in talks]
        folder = str(rule_of(tokenizer).processor.folder)
        return {"folder": folder, "given": given, "prompts": [*zip(texts, images, strict=True)]}

    told = {family: tokenizer_of(rule_of(tokenizers[family]).processor.folder, GIVEN[family]) for family in GIVEN}
    asked = [asked_of(tokenizer, {}, TALKS) for tokenizer in tokenizers.values()]
    asked += [asked_of(tokenizer, GIVEN[family], ALONE) for family, tokenizer in told.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.tokens.sglang_pictures"],
        input=orjson.dumps(asked),
        env=os.environ | environment(EngineSettings(asked[0]["folder"], "cpu", threads=1)),
        capture_output=True,
        timeout=500,
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("IDS ")]
    assert lines, done.stderr.decode()[-4000:]
    found = orjson.loads(lines[0][4:])
    for (family, tokenizer), theirs in zip(tokenizers.items(), found, strict=False):
        for talk, ids in zip(TALKS, theirs, strict=True):
            prompt = rendered(tokenizer, talk)
            assert prompt.estimated or ours(tokenizer, prompt) == ids, (family, talk)
    for (family, tokenizer), theirs in zip(told.items(), found[len(tokenizers) :], strict=True):
        for talk, ids in zip(ALONE, theirs, strict=True):
            assert ours(tokenizer, rendered(tokenizer, talk)) == ids, (family, talk)
        same = [
            ours(tokenizers[family], rendered(tokenizers[family], talk)) == ids
            for talk, ids in zip(ALONE, theirs, strict=True)
        ]
        assert all(same) == (family in UNHEARD), family
