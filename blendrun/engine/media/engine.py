"""An engine in front of the engine: fetches the media that request lines name, and hands on lines that hold them.

A line that names nothing passes as it is. The others are fetched while the engine works on what it has, a few lines at
once; one whose media cannot be had ends here, as a result with an error.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson

from blendrun.endpoints.local_media import Content, MediaError, TooLargeError, read_below
from blendrun.endpoints.media import Place, Reference, place_of, references
from blendrun.engine.base import Engine, EngineInfo, Result, WorkItem
from blendrun.engine.media.fetch import Fetcher, MediaAccess
from blendrun.engine.one_large import Holder, OneLarge
from blendrun.engine.threads import in_thread
from blendrun.engine.window import Window
from blendrun.errors import ErrorCode, LineError
from blendrun.events import Listener

# Lines whose media are being fetched, and bytes of each; one with more is fetched when no other such one is.
_AT_ONCE, _SMALL_BYTES = 16, 4 << 20
# Bodies with fetched media that the engine has, all together; a larger one goes alone.
_MOST_BYTES = 128 << 20
# For all media of a line; a single one has 30 s.
_LINE_SECONDS = 300.0
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")


class MediaEngine:
    """Keeps `blendrun.engine.base.Engine`. inner: what answers. access: what may be read and fetched."""

    def __init__(self, inner: Engine, access: MediaAccess) -> None:
        self._inner = inner
        self._access = access
        self._fetcher = Fetcher(access) if access.urls else None
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._fetched = OneLarge(_SMALL_BYTES)
        self._room = Window(2**31, _MOST_BYTES)
        self._sizes: dict[int, int] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        # None: the inner engine has no more results.
        self._results: asyncio.Queue[Result | None] = asyncio.Queue()

    @property
    def fetching(self) -> int:
        return len(self._fetching) + self._inner.fetching

    async def start(self, listener: Listener) -> EngineInfo:
        return await self._inner.start(listener)

    async def submit(self, item: WorkItem) -> None:
        # Most lines name no media at all, and are not parsed again to see it.
        if b'_url"' in item.body:
            body = orjson.loads(item.body)
            if wanted := [each for each in references(body) if place_of(each) is not Place.DATA]:
                task = asyncio.ensure_future(self._fetch(item, body, wanted))
                self._fetching.add(task)
                task.add_done_callback(self._fetching.discard)
                return
        await self._inner.submit(item)

    async def _fetch(self, item: WorkItem, body: dict[str, Any], wanted: list[Reference]) -> None:
        try:
            async with self._slots, self._fetched.reading() as holder:
                found = await self._found(wanted, holder)
                for reference, url in zip(wanted, found, strict=True):
                    reference.holder["url"] = url
                data = orjson.dumps(body)
                # In `data` now, which may have to wait for room.
                found.clear()
                body.clear()
                await self._room.enter(len(data))
            self._sizes[item.row] = len(data)
            await self._inner.submit(msgspec.structs.replace(item, body=data))
        except LineError as error:
            self._fail(item.row, 400, error.code, error.message)
        except TimeoutError:
            message = f"its media have not come within {_LINE_SECONDS:.0f} s"
            self._fail(item.row, 400, ErrorCode.MEDIA_UNAVAILABLE, message)
        except Exception as error:  # noqa: BLE001  # whatever it was, the line must have a result
            self._fail(item.row, 500, ErrorCode.ENGINE_ERROR, f"its media: {error!r}")

    def _fail(self, row: int, status: int, code: ErrorCode, message: str) -> None:
        # A lone surrogate cannot be sent as UTF-8.
        text = message.encode("utf-8", "replace").decode()
        self._results.put_nowait(Result(row, status, b"", error_code=str(code), error_message=text))

    async def _found(self, wanted: list[Reference], holder: Holder) -> list[str]:
        """Data URLs of all of them. Raises LineError, TimeoutError."""
        most = self._access.largest
        try:
            return await self._fetched_within(wanted, min(_SMALL_BYTES, most))
        except TooLargeError:
            # It waits for its turn without a connection, and not in the time that it has.
            await holder.hold(most)
        try:
            return await self._fetched_within(wanted, most)
        except TooLargeError as error:
            raise LineError(ErrorCode.MEDIA_UNAVAILABLE, str(error)) from error

    async def _fetched_within(self, wanted: list[Reference], most: int) -> list[str]:
        """The same. most: bytes of all together. Raises TooLargeError, with the reference that was too much."""
        found = []
        async with asyncio.timeout(_LINE_SECONDS):
            for reference in wanted:
                try:
                    content = await self._content(reference, most)
                except MediaError as error:
                    message = f"`{reference.field}`: {reference.shown} {error}"
                    if isinstance(error, TooLargeError):
                        raise TooLargeError(message) from error
                    raise LineError(ErrorCode.MEDIA_UNAVAILABLE, message) from error
                most -= len(content.data)
                found.append(_data_url(reference.kind, content))
        return found

    async def _content(self, reference: Reference, largest: int) -> Content:
        if place_of(reference) is Place.FILE:
            if self._access.files is None:
                raise MediaError("is read only with --allow-media-files DIR")
            return await in_thread(read_below, self._access.files, reference.url, largest)
        if self._fetcher is None:
            raise MediaError("is fetched only with --allow-media-urls")
        return await self._fetcher.fetch(reference.url, largest)

    async def close_input(self) -> None:
        while self._fetching:
            await asyncio.gather(*self._fetching)
        await self._inner.close_input()

    async def results(self) -> AsyncIterator[Result]:
        taking = asyncio.ensure_future(self._take())
        try:
            while (result := await self._results.get()) is not None:
                yield result
            await taking
        finally:
            taking.cancel()

    async def _take(self) -> None:
        try:
            async for result in self._inner.results():
                if (size := self._sizes.pop(result.row, None)) is not None:
                    await self._room.leave(size)
                self._results.put_nowait(result)
        finally:
            self._results.put_nowait(None)

    async def stop(self) -> None:
        for task in self._fetching:
            task.cancel()
        if self._fetcher is not None:
            await self._fetcher.close()
        await self._inner.stop()


def _data_url(kind: str, content: Content) -> str:
    # The type decides nothing in the engine but whether it is a picture.
    type_ = content.type if _TYPE.fullmatch(content.type) and content.type.startswith(f"{kind}/") else f"{kind}/unknown"
    return f"data:{type_};base64,{b64encode(content.data).decode()}"
