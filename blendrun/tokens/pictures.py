"""How many tokens a picture becomes: by its size alone, as the model's own processor has it.

Known of Qwen's models that see (2-VL, 2.5-VL, 3-VL), whose pictures are scaled to whole patches and fill the place of
one token of the prompt. Of other models the number is an estimate (`tokenizer.MEDIA_TOKENS`).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from blendrun.endpoints.local_media import LARGEST_BYTES, MediaError, read_below
from blendrun.endpoints.media import Place, Reference, place_of
from blendrun.errors import LineError
from blendrun.tokens.chat import Media
from blendrun.tokens.picture_size import picture_size

_PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")
# transformers' own, where a processor's file is silent.
_SMALLEST, _LARGEST = 56 * 56, 28 * 28 * 1280
# SGLang gives these of this model to its processor, whatever the file says (utils/hf_transformers/processor.py).
_BOUND = "qwen2_vl"
_THINNEST = 200
# Ids of no vocabulary: what stands for a picture's tokens is told apart by what is in it.
_STAND_IN = 1 << 30


@dataclass(frozen=True, slots=True)
class Picture:
    """What one picture is in a prompt. stand_in: the id that each of its tokens has, the same for equal pictures."""

    tokens: int
    stand_in: int


@dataclass(frozen=True, slots=True)
class PictureRule:
    """pad: what a rendered prompt has in the place of each picture; pad_id: its token.

    side: pixels, of the square that becomes a token. smallest, largest: pixels of a picture once it is scaled.
    """

    pad: str
    pad_id: int
    side: int
    smallest: int
    largest: int

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

    def pictures(
        self, media: tuple[Media, ...], text: str, body: Mapping[str, Any], files: Path | None
    ) -> tuple[Picture, ...] | None:
        """Each of a prompt's media; None where not all of them are pictures whose size and place are known.

        files: the folder below which files may be read, None for nowhere.
        """
        if body.get("mm_processor_kwargs") or body.get("images_config") or text.count(self.pad) != len(media):
            return None
        found = []
        for part in media:
            picture = self._picture(part, files)
            if picture is None:
                return None
            found.append(picture)
        return tuple(found)

    def _picture(self, part: Media, files: Path | None) -> Picture | None:
        holder = orjson.loads(part.reference).get("image_url")
        if part.kind != "image" or not isinstance(holder, dict) or not holder.keys() <= {"url", "detail"}:
            return None
        data = _content(Reference("image_url", "image", holder), files)
        size = None if data is None else picture_size(data)
        if data is None or size is None or not (tokens := self.tokens(*size)):
            return None
        key = int.from_bytes(blake2b(data, digest_size=4).digest(), "little")
        return Picture(tokens, _STAND_IN | key % _STAND_IN)


def picture_rule(folder: Path, backend: Tokenizer) -> PictureRule | None:
    """That of a model folder; None where its processor is none that is known here."""
    processor, config = _processor(folder), _json(folder / "config.json")
    pad_id = config.get("image_token_id")
    if not isinstance(pad_id, int) or pad_id < 0 or (pad := backend.id_to_token(pad_id)) is None:
        return None
    if processor.get("image_processor_type") not in _PROCESSORS or not processor.get("do_resize", True):
        return None
    size = processor.get("size")
    size = size if isinstance(size, dict) else {}
    smallest = processor.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or _SMALLEST
    largest = processor.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or _LARGEST
    if config.get("model_type") == _BOUND:
        smallest, largest = _SMALLEST, _LARGEST
    patch, merged = processor.get("patch_size", 14), processor.get("merge_size", 2)
    if not all(isinstance(number, int) and number > 0 for number in (patch, merged, smallest, largest)):
        return None
    return PictureRule(pad, pad_id, patch * merged, smallest, largest)


def _processor(folder: Path) -> dict[str, Any]:
    found = _json(folder / "preprocessor_config.json")
    return found or _json(folder / "processor_config.json").get("image_processor") or {}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _content(reference: Reference, files: Path | None) -> bytes | None:
    """What a picture's url names, if it is in the url or in a file that may be read."""
    try:
        place = place_of(reference)
        if place is Place.DATA:
            return base64.b64decode(reference.url.partition(",")[2])
        if place is Place.FILE and files is not None:
            return read_below(files, reference.url, LARGEST_BYTES).data
    except (LineError, MediaError, binascii.Error, ValueError):
        pass
    return None
