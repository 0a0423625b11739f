"""One exchange with a server, of which nothing is trusted: its length, what it unpacks to, how long it takes.

httpx would unpack a piece whole, and 64 KiB may unpack to gigabytes; so pieces are taken as they came, and unpacked
here, a little at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blendrun.engine.one_large import Holder

if TYPE_CHECKING:
    import httpx

# What is asked for, and all that is understood.
ACCEPTED = "gzip, deflate"
_PIECE_BYTES = 1 << 16
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


class UnreadableReplyError(Exception):
    """A reply that nobody should hold, or that is packed in a way that was not asked for. A clause."""


class Reply:
    """status, retry_after: of the reply's head. `content` takes its body, once."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status: int = response.status_code
        self.retry_after: str | None = response.headers.get("Retry-After")

    async def content(self, most: int, holder: Holder | None = None) -> bytes:
        """The body, unpacked. most: bytes. holder: waited for where the body is large.

        Raises UnreadableReplyError where there are more than `most`, or they are not sound; httpx.HTTPError.
        """
        unpack, data = _unpacker(self._response.headers.get("Content-Encoding", "")), bytearray()
        async for piece in self._response.aiter_raw(_PIECE_BYTES):
            for part in unpack(piece):
                if holder is not None:
                    await holder.hold(len(data) + len(part))
                data += part
                if len(data) > most:
                    raise UnreadableReplyError(f"more than {most:,} bytes, which is all that is read of an answer")
        for part in unpack(b""):
            data += part
        return bytes(data)

    async def beginning(self, most: int) -> bytes:
        """At most so many bytes of the body, of what can be unpacked. Raises httpx.HTTPError."""
        data = bytearray()
        try:
            unpack = _unpacker(self._response.headers.get("Content-Encoding", ""))
            async for piece in self._response.aiter_raw(_PIECE_BYTES):
                for part in unpack(piece):
                    data += part
                    if len(data) >= most:
                        return bytes(data[:most])
        except UnreadableReplyError:
            pass
        return bytes(data)


@asynccontextmanager
async def asked(
    client: httpx.AsyncClient, method: str, path: str, content: bytes | None = None
) -> AsyncIterator[Reply]:
    """The reply to a request; its body is not read yet. Raises httpx.HTTPError."""
    headers = {"Accept-Encoding": ACCEPTED} | ({} if content is None else {"Content-Type": "application/json"})
    async with client.stream(method, path, content=content, headers=headers) as response:
        yield Reply(response)


@dataclass(slots=True)
class _Plain:
    def __call__(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Packed:
    """gzip (all members) and deflate (with or without zlib's head), a piece of plain bytes at a time."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._begun = False

    def __call__(self, piece: bytes) -> Iterator[bytes]:
        """Plain bytes of a piece; b"" is the end. Raises UnreadableReplyError."""
        if not piece and self._begun and not self._decoder.eof:
            raise UnreadableReplyError("a packed answer that breaks off")
        while piece:
            if self._decoder.eof:
                self._decoder = zlib.decompressobj(_ZLIB_OR_GZIP)
            try:
                part = self._decoder.decompress(piece, _PIECE_BYTES)
            except zlib.error as error:
                if self._begun:
                    raise UnreadableReplyError(f"a packed answer that is not sound ({error})") from error
                # Some servers send deflate without its head.
                self._decoder, self._begun = zlib.decompressobj(-zlib.MAX_WBITS), True
                continue
            self._begun = True
            yield part
            piece = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail


def _unpacker(encoding: str) -> _Plain | _Packed:
    """Raises UnreadableReplyError for a packing that was not asked for."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return _Plain()
    if name in ("gzip", "x-gzip", "deflate"):
        return _Packed()
    raise UnreadableReplyError(f"an answer packed as {name[:40]!r}, which was not asked for")
