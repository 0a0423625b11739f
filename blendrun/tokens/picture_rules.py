"""What pictures become in a prompt: Qwen's rule, worked out here, and all others by the model's own processor.

Qwen's models that see (2-VL, 2.5-VL, 3-VL) scale a picture to whole patches, which fill the place of one token of the
prompt. The processors of other models are asked (`blendrun.models.processor`), where they are in the model's folder.
An engine may give its processor arguments of its own (SGLang's `mm_process_config`), which then count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from blendrun.models.processor import Processor
from blendrun.tokens.pictures import PictureRule, Shape, Shapes, Size

_PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")
# transformers' own, where a processor's file is silent.
_SMALLEST, _LARGEST = 56 * 56, 28 * 28 * 1280
# Of an engine's arguments for pictures, those that the rule knows.
_OF_SIZE = frozenset(("min_pixels", "max_pixels", "size"))
_NOTHING: Mapping[str, Any] = {}
# SGLang gives these of this model to its processor, whatever the file says (utils/hf_transformers/processor.py).
_BOUND = "qwen2_vl"
_THINNEST = 200
_FILES = ("preprocessor_config.json", "processor_config.json", "config.json")
# Architectures whose input processing in SGLang (0.5.23) gives the processor's tokens, compared id for id. Of the first
# SGLang has classes of its own, and they leave out the tokenizer's special tokens where a prompt begins with the first
# of them; others run as transformers has them, and get special tokens in any case.
_OWN_CLASS = frozenset(("Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration"))
_AS_TRANSFORMERS = frozenset(f"{name}ForConditionalGeneration" for name in ("Idefics3", "InternVL", "SmolVLM"))
_LLAVA = "LlavaForConditionalGeneration"


@dataclass(frozen=True, slots=True)
class QwenRule:
    """pad: what a rendered prompt has in the place of each picture; pad_id: its token.

    side: pixels, of the square that becomes a token. smallest, largest: pixels of a picture once it is scaled.
    """

    pad: str
    pad_id: int
    side: int
    smallest: int
    largest: int

    def shapes(self, sizes: tuple[Size, ...]) -> Shapes | None:
        tokens = [self.tokens(*size) for size in sizes]
        if not all(tokens):
            return None
        return Shapes(self.pad, self.pad, self.pad_id, tuple(Shape(self.pad, (count,)) for count in tokens))

    def special(self, text: str) -> bool:
        return False

    def tokens(self, width: int, height: int) -> int:
        """transformers 5, qwen2_vl/image_processing_qwen2_vl.py:smart_resize. 0 for what it refuses."""
        if min(width, height) < 1 or max(width, height) > _THINNEST * min(width, height):
            return 0
        across, down = (round(length / self.side) for length in (width, height))
        pixels = across * down * self.side * self.side
        # The same operations in the same order: whole numbers come of them, and a last bit may decide which.
        if pixels > self.largest:
            shrunk = math.sqrt(width * height / self.largest)
            across, down = (max(1, math.floor(length / shrunk / self.side)) for length in (width, height))
        elif pixels < self.smallest:
            grown = math.sqrt(self.smallest / (width * height))
            across, down = (math.ceil(length * grown / self.side) for length in (width, height))
        return across * down


@dataclass(frozen=True)
class ProcessorRule:
    """The rule of a model's own processor. identity: of its files, of what it is given and of transformers.

    begins: the tokenizer's first special token, where SGLang adds none to a prompt that begins with it; else empty.
    alone: whether SGLang goes by the processor for a prompt of one picture only. sure: whether it does at all.
    """

    identity: str
    begins: str
    sure: bool
    alone: bool
    processor: Processor = field(repr=False)
    backend: Tokenizer = field(repr=False)

    def shapes(self, sizes: tuple[Size, ...]) -> Shapes | None:
        words = self.processor.placeholders()
        texts = self.processor.texts(sizes) if words else None
        mark_id = self.backend.token_to_id(words.mark) if words else None
        if words is None or texts is None or mark_id is None:
            return None
        runs = re.compile(f"(?:{re.escape(words.mark)})+")
        found = []
        for text in texts:
            lengths = tuple(len(run) // len(words.mark) for run in runs.findall(text))
            found.append(Shape(runs.sub(lambda _: words.mark, text), lengths))
        sure = self.sure and (len(sizes) == 1 or not self.alone)
        return Shapes(words.place, words.mark, mark_id, tuple(found), sure)

    def special(self, text: str) -> bool:
        return not (self.begins and text.startswith(self.begins))


def picture_rule(
    folder: Path, backend: Tokenizer, begins: str = "", images: Mapping[str, Any] = _NOTHING
) -> PictureRule | None:
    """That of a model folder; None where it has no processor.

    begins: the tokenizer's first special token. images: what the engine gives the processor beside pictures.
    """
    processor, config = _processor(folder), _json(folder / "config.json")
    if not processor:
        return None
    if processor.get("image_processor_type") in _PROCESSORS and (rule := _qwen(processor, config, backend, images)):
        return rule
    return _asked(folder, config, backend, begins, images)


def _qwen(
    processor: dict[str, Any], config: dict[str, Any], backend: Tokenizer, images: Mapping[str, Any]
) -> QwenRule | None:
    pad_id = config.get("image_token_id")
    if not isinstance(pad_id, int) or pad_id < 0 or (pad := backend.id_to_token(pad_id)) is None:
        return None
    if not processor.get("do_resize", True) or not images.keys() <= _OF_SIZE:
        return None
    size = processor.get("size")
    size = size if isinstance(size, dict) else {}
    smallest = processor.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or _SMALLEST
    largest = processor.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or _LARGEST
    if config.get("model_type") == _BOUND:
        smallest, largest = _SMALLEST, _LARGEST
    if isinstance(given := images.get("size"), dict):
        smallest, largest = given.get("shortest_edge"), given.get("longest_edge")
    smallest, largest = images.get("min_pixels") or smallest, images.get("max_pixels") or largest
    patch, merged = processor.get("patch_size", 14), processor.get("merge_size", 2)
    if not all(isinstance(number, int) and number > 0 for number in (patch, merged, smallest, largest)):
        return None
    return QwenRule(pad, pad_id, patch * merged, smallest, largest)


def _asked(
    folder: Path, config: dict[str, Any], backend: Tokenizer, begins: str, images: Mapping[str, Any]
) -> ProcessorRule | None:
    try:
        runtime = version("transformers")
    except PackageNotFoundError:
        return None
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    vision = config.get("vision_config")
    seen_by = vision.get("model_type") if isinstance(vision, dict) else None
    pixtral = name == _LLAVA and seen_by == "pixtral"
    # SGLang's own rule for these makes as many tokens of a picture, but takes one picture only.
    clip = name == _LLAVA and seen_by == "clip_vision_model" and "image_aspect_ratio" not in config
    sure = pixtral or clip or name in _OWN_CLASS or name in _AS_TRANSFORMERS
    if clip or name in _AS_TRANSFORMERS:
        # SGLang (0.5.23) calls their processors without them.
        begins, images = "", {}
    given = json.dumps(dict(images), sort_keys=True)
    content = json.dumps([_json(folder / each) for each in _FILES], sort_keys=True) + given
    identity = f"{runtime} {blake2b(content.encode(), digest_size=16).hexdigest()}"
    return ProcessorRule(identity, begins, sure, clip, _shared(folder.resolve(), identity, given), backend)


@lru_cache(maxsize=4)
def _shared(folder: Path, identity: str, images: str) -> Processor:
    """One process for a folder, whoever loads it; `identity` so that changed files are read again."""
    return Processor(folder, images)


def _processor(folder: Path) -> dict[str, Any]:
    found = _json(folder / "preprocessor_config.json")
    return found or _json(folder / "processor_config.json").get("image_processor") or {}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
