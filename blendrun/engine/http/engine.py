"""One server that already runs, as an engine: it gets requests in the order of the plan, and schedules them itself."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blendrun.backoff import pause, retry_after
from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.failure import failure
from blendrun.engine.http.answer import NoAnswerError, answer_of, message_of, refusal_of
from blendrun.engine.http.body import OutgoingRequest, ask
from blendrun.engine.http.client import http_client, most_connections
from blendrun.engine.http.exchange import Reply, UnreadableReplyError
from blendrun.engine.http.exchange import asked as exchange
from blendrun.engine.http.limit import Limit
from blendrun.engine.http.retry import NOT_THE_REQUESTS, Verdict, meaning_of
from blendrun.engine.http.server import ServerAwayError, ServerInfo, look, reason_of, refused
from blendrun.engine.http.settings import HttpSettings
from blendrun.engine.one_large import OneLarge
from blendrun.errors import EngineUnavailableError, ErrorCode
from blendrun.events import Listener, PhaseStarted
from blendrun.text import cut, printable

if TYPE_CHECKING:
    import httpx

# Where a kind of server has an endpoint at a path of its own.
_PATHS = {("vllm", "/v1/classify"): "/classify"}
_LONGEST_NAMES = 400
# A server that is awaited is looked for so often at least, in seconds.
_LOOK_S = 5.0
_CONCURRENCY = 64
# Beside what runs, so that the server has the next request when one ends: at least so many, or this part.
_LEAST_QUEUED, _QUEUED_PART = 4, 8
# A request that was not answered in time is not tried as often as one that failed at once.
_STALLS = 2
# Requests in a row that end in an error of the server's own: then it is the server.
_MOST_FAILED = 10
# An exchange that lasts so many seconds is one that the server works on.
_AT_WORK_S = 10.0
# Of what is being read of all answers together, and at least of each; a larger one is read when no other large one is.
_READING_BYTES, _LEAST_BYTES = 64 << 20, 1 << 16
# Of a reply that is no answer: what it says is shown to people.
_ERROR_BYTES = 1 << 16


class HttpEngine:
    """Keeps `blendrun.engine.base.Engine`. server: its base address. log_file: what went wrong, a line each.

    models: names that it must serve, the first of which is asked for; () for whatever it serves.

    A request is tried again where the server refuses it for now (any number of times), fails it (`tries`) or does not
    answer in time (twice); a server that is away, or fails one request after another, is a dead engine.
    """

    def __init__(self, server: str, settings: HttpSettings, log_file: Path, models: tuple[str, ...] = ()) -> None:
        self._server, self._settings, self._log_file, self._models = server, settings, log_file, models
        self._client: httpx.AsyncClient | None = None
        self._info: ServerInfo | None = None
        self._limit = Limit(1)
        self._reading = OneLarge(_LEAST_BYTES)
        self._waiting: asyncio.Queue[WorkItem] = asyncio.Queue()
        self._results: asyncio.Queue[Result | EngineUnavailableError | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None
        self._left = 0
        self._closed = False
        # Requests in a row that the server failed; since when it has refused all; when it last answered one; when each
        # exchange began.
        self._failed = 0
        self._refused_since: float | None = None
        self._answered = 0.0
        self._begun: dict[int, float] = {}

    @property
    def fetching(self) -> int:
        return 0

    async def start(self, listener: Listener) -> EngineInfo:
        self._client = http_client(self._server)
        info = self._info = await self._up(listener)
        settings = self._settings
        if missing := [name for name in self._models if name not in info.models]:
            served = cut(", ".join(info.models), _LONGEST_NAMES)
            raise EngineUnavailableError(f"{self._server} serves {served}, not {missing[0]}")
        at_once = min(settings.concurrency or self._at_once(info), most_connections())
        self._limit = Limit(at_once, settings.tokens)
        self._reading = OneLarge(max(_READING_BYTES // at_once, _LEAST_BYTES))
        self._answered = time.monotonic()
        self._sender = asyncio.ensure_future(self._send())
        return EngineInfo(
            engine=f"{info.kind} server",
            platform="server",
            context_length=info.context_length or 0,
            kv_tokens=info.kv_tokens or settings.max_total_tokens or 0,
            max_running=at_once,
            versions={info.kind: info.version} if info.version else {},
            notes=tuple(f"{self._server}: {note}" for note in info.notes),
            # What waits here is not begun, and a drain would begin it.
            queue=0,
        )

    async def _up(self, listener: Listener) -> ServerInfo:
        """Wait until the server is there. Raises EngineUnavailableError."""
        assert self._client is not None, "before start"
        listener(PhaseStarted("load", self._server))
        end, tries = time.monotonic() + self._settings.wait, 0
        while True:
            try:
                return await look(self._client)
            except ServerAwayError as error:
                tries += 1
                if time.monotonic() >= end:
                    raise EngineUnavailableError(
                        f"{self._server} is away ({error}): start it, or check the address"
                    ) from error
                listener(PhaseStarted("load", f"waiting for {self._server}: {error}"))
            seconds = pause(tries, self._settings.backoff)
            await asyncio.sleep(min(seconds, _LOOK_S, max(end - time.monotonic(), 0.0)))

    def _at_once(self, info: ServerInfo) -> int:
        running = info.max_running or self._settings.max_running_requests
        return _CONCURRENCY if running is None else running + max(running // _QUEUED_PART, _LEAST_QUEUED)

    async def submit(self, item: WorkItem) -> None:
        self._left += 1
        self._waiting.put_nowait(item)

    async def close_input(self) -> None:
        self._closed = True
        self._results.put_nowait(None)

    async def results(self) -> AsyncIterator[Result]:
        while not (self._closed and not self._left):
            result = await self._results.get()
            if isinstance(result, EngineUnavailableError):
                raise result
            if result is not None:
                self._left -= 1
                yield result
        # More may be handed over after that.
        self._closed = False

    async def stop(self) -> None:
        """The server goes on; what it was asked and has not answered is cut off."""
        tasks = [*self._tasks] if self._sender is None else [self._sender, *self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()
        self._sender = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self) -> None:
        """One after the other, as the plan has them."""
        assert self._info is not None, "before start"
        model = (*self._models, *self._info.models)[0]
        while True:
            item = await self._waiting.get()
            try:
                asked = ask(item, self._info.models, model, self._info.context_length)
            except Exception as error:  # noqa: BLE001  # one line must not end the others
                self._results.put_nowait(failure(item.row, 400, ErrorCode.INVALID_REQUEST, reason_of(error)))
                continue
            await self._limit.enter(asked.tokens)
            task = asyncio.ensure_future(self._answer(item, asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, item: WorkItem, asked: OutgoingRequest) -> None:
        result = None
        try:
            result = await self._ask(item, asked)
            self._results.put_nowait(result)
        except EngineUnavailableError as error:
            self._results.put_nowait(error)
        except Exception as error:  # noqa: BLE001  # whatever it was, the line must have a result
            self._results.put_nowait(failure(item.row, 500, ErrorCode.ENGINE_ERROR, reason_of(error)))
        finally:
            await self._limit.leave(asked.tokens, answered=result is not None and result.error_code is None)

    async def _ask(self, item: WorkItem, asked: OutgoingRequest) -> Result:
        """Until there is a result. Raises EngineUnavailableError where the server is to blame for all."""
        tried = dict.fromkeys(Verdict, 0)
        away_since = 0.0
        while True:
            meaning, outcome, asked_for = await self._exchange(item, asked)
            if isinstance(outcome, Result):
                if outcome.error_code == ErrorCode.CONTEXT_LENGTH_EXCEEDED and (less := asked.less()) is not None:
                    asked = less
                    continue
                return self._ended(outcome)
            if meaning is not Verdict.BUSY:
                self._refused_since = None
            if meaning is not Verdict.AWAY:
                tried[Verdict.AWAY] = 0
            elif not tried[Verdict.AWAY] or self._answered > away_since:
                # It answers others: this one had bad luck.
                tried[Verdict.AWAY], away_since = 0, time.monotonic()
            tried[meaning] += 1
            tries = self._check(meaning, outcome, tried)
            if tries is not None:
                if meaning is Verdict.FAILED:
                    await self._look_for_it(outcome)
                return self._fail(item.row, meaning, outcome, tries)
            # Nobody is waited for longer than a server that is away.
            seconds = pause(tried[meaning], self._settings.backoff, asked_for, self._settings.wait)
            self._log(f"row {item.row}: {outcome}; again in {seconds:.1f} s")
            await asyncio.sleep(seconds)

    def _ended(self, result: Result) -> Result:
        """Take in an answer or a refusal. Raises EngineUnavailableError where the server refuses one after another."""
        self._refused_since = None
        if result.error_code is None:
            self._answered, self._failed = time.monotonic(), 0
        elif result.status_code in NOT_THE_REQUESTS:
            self._blame(f"HTTP {result.status_code}: {result.error_message[:300]}")
        return result

    async def _exchange(self, item: WorkItem, asked: OutgoingRequest) -> tuple[Verdict, Result | str, float | None]:
        """One try: what it means; the result, or what went wrong in a clause; seconds that the server asks to wait."""
        import httpx

        assert self._client is not None and self._info is not None, "asked before start"
        self._begun[item.row] = time.monotonic()
        path = _PATHS.get((self._info.kind, item.url), item.url)
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                exchange(self._client, "POST", path, asked.content) as reply,
            ):
                return await self._outcome(item, asked, reply)
        except TimeoutError:
            return Verdict.STALLED, f"no answer within {self._settings.timeout:g} s", None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Verdict.AWAY, reason_of(error), None
        except httpx.HTTPError as error:
            return Verdict.FAILED, f"the connection was cut ({reason_of(error)})", None
        finally:
            del self._begun[item.row]

    async def _outcome(
        self, item: WorkItem, asked: OutgoingRequest, reply: Reply
    ) -> tuple[Verdict, Result | str, float | None]:
        """The same of a reply whose head is there. Raises EngineUnavailableError, httpx.HTTPError."""
        meaning = meaning_of(reply.status)
        if meaning is Verdict.ANSWERED:
            return *await self._answered_with(item.row, asked, reply), None
        said = await reply.beginning(_ERROR_BYTES)
        if meaning is Verdict.REFUSED:
            return meaning, refusal_of(item.row, reply.status, said), None
        if meaning is Verdict.FORBIDDEN:
            assert self._client is not None, "asked before start"
            raise refused(self._client, reply.status)
        text = f"HTTP {reply.status}: {message_of(said)[:300]}".rstrip(": ")
        return meaning, printable(text), retry_after(reply.retry_after)

    async def _answered_with(self, row: int, asked: OutgoingRequest, reply: Reply) -> tuple[Verdict, Result | str]:
        """What an answer is; one that is none, and would be none again, is the end of its request."""
        most = self._settings.answer_bytes
        async with self._reading.reading() as holder:
            try:
                content = await reply.content(most, holder)
                return Verdict.ANSWERED, answer_of(row, asked.endpoint, content, asked.choices, most)
            except UnreadableReplyError as error:
                return Verdict.REFUSED, failure(row, 502, ErrorCode.ENGINE_ERROR, f"the server gave {error}")
            except NoAnswerError as error:
                if error.again:
                    return (Verdict.FAILED if error.blamed else Verdict.MALFORMED), str(error)
                return Verdict.REFUSED, failure(row, 502, ErrorCode.ENGINE_ERROR, f"the server gave {error}")

    def _check(self, meaning: Verdict, reason: str, tried: dict[Verdict, int]) -> int | None:
        """How often it was tried, where it is not tried again. Raises EngineUnavailableError."""
        if meaning is Verdict.BUSY:
            self._limit.too_many()
            self._check_refusing(reason)
            return None
        most = _STALLS if meaning is Verdict.STALLED else self._settings.tries
        if tried[meaning] < most:
            return None
        if meaning is Verdict.AWAY:
            # One that was at work on this when it went may have gone because of it.
            lost = not tried[Verdict.FAILED]
            raise EngineUnavailableError(f"{self._server} is away: {reason}", machine_lost=lost)
        return tried[meaning]

    async def _look_for_it(self, reason: str) -> None:
        """Before a request is blamed: a server where nobody listens any more has failed it as it went.

        Raises EngineUnavailableError.
        """
        import httpx

        assert self._client is not None, "asked before start"
        try:
            await look(self._client)
        except ServerAwayError as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                raise EngineUnavailableError(f"{self._server} is away ({error}): {reason}") from error
        except EngineUnavailableError:
            # It listens, and what it says of itself was looked at before the first request.
            return

    def _check_refusing(self, reason: str) -> None:
        """A server that refuses some requests for now works on others. Raises EngineUnavailableError."""
        now = time.monotonic()
        if any(now - begun > _AT_WORK_S for begun in self._begun.values()):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > self._settings.wait:
            raise EngineUnavailableError(
                f"{self._server} has refused every request for {self._settings.wait:g} s: {reason}", machine_lost=True
            )

    def _fail(self, row: int, meaning: Verdict, reason: str, tries: int) -> Result:
        """The error of a request that the server could not answer. Raises EngineUnavailableError."""
        self._log(f"row {row}: {reason}; given up after {tries} tries")
        if meaning is not Verdict.MALFORMED:
            self._blame(reason)
        if meaning is Verdict.STALLED:
            return failure(row, 504, ErrorCode.REQUEST_TIMEOUT, f"{reason}, {tries} times")
        return failure(row, 500, ErrorCode.ENGINE_ERROR, f"the server failed it {tries} times; the last time: {reason}")

    def _blame(self, reason: str) -> None:
        """One request, unless it is one of many in a row. Raises EngineUnavailableError."""
        self._failed += 1
        if self._failed > _MOST_FAILED:
            what = f"{self._server} has failed {self._failed} requests in a row: {reason}"
            raise EngineUnavailableError(what, machine_lost=True)

    def _log(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        # A log that cannot be written costs no request its answer.
        with suppress(OSError):
            handle = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, f"{stamp} {self._server} {printable(text)}\n".encode("utf-8", "replace"))
            finally:
                os.close(handle)
