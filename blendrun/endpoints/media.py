"""Images, videos and sounds that a request line refers to: where they stand in its body, and what they name.

SGLang opens whatever stands there: http addresses, `file://`, absolute paths, for sound and video any path at all. So
nothing but a `data:` URL may reach it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blendrun.errors import ErrorCode, LineError

_KINDS = {"image_url": "image", "video_url": "video", "audio_url": "audio"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BASE64 = re.compile(r"data:[^,]{0,200};base64,")
_SHOWN_CHARACTERS = 80


class Place(StrEnum):
    """What a reference names."""

    DATA = "data"
    ADDRESS = "address"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Reference:
    """One image, video or sound. field: where it stands, for messages. kind: "image", "video" or "audio".

    holder: the object of the body whose `url` it is, so that it can be replaced there.
    """

    field: str
    kind: str
    holder: dict[str, Any]

    @property
    def url(self) -> str:
        url: str = self.holder["url"]
        return url

    @property
    def shown(self) -> str:
        """The url for a message, cut short."""
        return repr(self.url[:_SHOWN_CHARACTERS]) + ("…" if len(self.url) > _SHOWN_CHARACTERS else "")


def references(body: dict[str, Any]) -> Iterator[Reference]:
    """All references of a valid body, whatever `type` their part states.

    Raises LineError for a part that is not of the form {"image_url": {"url": …}}.
    """
    messages = body.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        # Of an endpoint that has no use for them they may be anything.
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            continue
        for place, part in enumerate(content):
            if isinstance(part, dict):
                for name in _KINDS.keys() & part.keys():
                    yield _reference(part[name], f"messages[{number}].content[{place}].{name}", _KINDS[name])


def _reference(holder: object, field: str, kind: str) -> Reference:
    if not isinstance(holder, dict) or not isinstance(holder.get("url"), str):
        raise LineError(ErrorCode.INVALID_REQUEST, f"`{field}` must be an object with a `url`")
    if holder.get("content_hash") is not None:
        raise LineError(
            ErrorCode.INVALID_REQUEST, f"`{field}.content_hash` is not taken: media are known by their content"
        )
    return Reference(field, kind, holder)


def place_of(reference: Reference) -> Place:
    """What kind of place it names. Raises LineError for a scheme that nobody reads."""
    found = _SCHEME.match(reference.url)
    # Only in small letters do SGLang's loaders take a data URL for one.
    scheme = found[1] if found else ""
    if scheme == "data":
        if not _BASE64.match(reference.url):
            raise LineError(ErrorCode.INVALID_REQUEST, f"`{reference.field}`: a data URL must be data:TYPE;base64,DATA")
        return Place.DATA
    if scheme.lower() in ("http", "https"):
        return Place.ADDRESS
    if scheme.lower() in ("", "file"):
        return Place.FILE
    raise LineError(
        ErrorCode.INVALID_REQUEST,
        f"`{reference.field}`: {reference.shown} is none of data:, http:, https:, file: and a path",
    )
