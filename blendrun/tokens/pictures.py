"""The pictures of a prompt in a plan: each by its size and content, in the place where its tokens will stand.

What a picture becomes the model's processor decides, by its size alone (`picture_rules`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import orjson

from blendrun.endpoints.local_media import LARGEST_BYTES, MediaError, read_below
from blendrun.endpoints.media import Place, Reference, place_of
from blendrun.errors import LineError
from blendrun.tokens.chat import Media
from blendrun.tokens.picture_size import picture_size

Size = tuple[int, int]
# Ids of no vocabulary: what stands for a picture's tokens is told apart by what is in it.
_STAND_IN = 1 << 30


@dataclass(frozen=True, slots=True)
class Picture:
    """What one picture is in a prompt. runs: tokens of each of its stretches; between them stand tokens of the text.

    stand_in: the id that each of its tokens has, the same for equal pictures.
    """

    runs: tuple[int, ...]
    stand_in: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a picture of some size becomes. text: stands in its place, with one mark for each of `runs`, in tokens."""

    text: str
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Those of a prompt's pictures, in order.

    place: what a rendered prompt has where a picture comes. mark, mark_id: the token that stands for a picture's own.
    sure: whether the runtime goes by them; otherwise they are an estimate.
    """

    place: str
    mark: str
    mark_id: int
    shapes: tuple[Shape, ...]
    sure: bool = True


class PictureRule(Protocol):
    """What a model's processor makes of pictures. Its `repr` tells rules apart."""

    def shapes(self, sizes: tuple[Size, ...]) -> Shapes | None:
        """Of pictures (width, height) in pixels that one prompt has; None where the processor refuses them."""

    def special(self, text: str) -> bool:
        """Whether the tokenizer adds its special tokens to a rendered prompt that has pictures."""


@dataclass(frozen=True, slots=True)
class Pictured:
    """A prompt whose pictures are known. text: with a mark for each run of each of `pictures`."""

    text: str
    pictures: tuple[Picture, ...]
    mark_id: int
    special: bool
    sure: bool


def pictured(
    rule: PictureRule, media: tuple[Media, ...], text: str, body: Mapping[str, Any], files: Path | None
) -> Pictured | None:
    """A rendered prompt with its media; None where not all of them are pictures whose size and place are known.

    files: the folder below which files may be read, None for nowhere.
    """
    if body.get("mm_processor_kwargs") or body.get("images_config"):
        return None
    sizes, stand_ins = [], []
    for part in media:
        found = _seen(part, files)
        if found is None:
            return None
        sizes.append(found[0])
        stand_ins.append(found[1])
    made = rule.shapes(tuple(sizes))
    if made is None or text.count(made.place) != len(media):
        return None
    between = text.split(made.place)
    whole = between[0] + "".join(shape.text + rest for shape, rest in zip(made.shapes, between[1:], strict=True))
    # A prompt that has the mark in its own words is none that the processor would take.
    if whole.count(made.mark) != sum(len(shape.runs) for shape in made.shapes):
        return None
    pictures = tuple(Picture(shape.runs, own) for shape, own in zip(made.shapes, stand_ins, strict=True))
    return Pictured(whole, pictures, made.mark_id, rule.special(text), made.sure)


def _seen(part: Media, files: Path | None) -> tuple[Size, int] | None:
    """A picture's size, and the id that stands for it."""
    holder = orjson.loads(part.reference).get("image_url")
    if part.kind != "image" or not isinstance(holder, dict) or not holder.keys() <= {"url", "detail"}:
        return None
    data = _content(Reference("image_url", "image", holder), files)
    size = None if data is None else picture_size(data)
    if data is None or size is None:
        return None
    key = int.from_bytes(blake2b(data, digest_size=4).digest(), "little")
    return size, _STAND_IN | key % _STAND_IN


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
