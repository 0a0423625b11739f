"""The routes: OpenAI's Files and Batches, the models there are, and a page for people."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from blendrun.endpoints.apis.registry import URLS
from blendrun.service.asked import (
    FORM_BYTES,
    UPLOADED,
    ApiError,
    bounded,
    form_kept_seconds,
    kept_seconds,
    metadata_of,
    missing,
    object_of,
    parameters,
    text_of,
    too_large,
    window_seconds,
)
from blendrun.service.desk import Desk
from blendrun.service.objects import BatchObject, FileObject, new_id, now, told
from blendrun.service.page import PAGE
from blendrun.service.replies import HANDLERS, json_of
from blendrun.service.reports import NoReportError, Reports
from blendrun.service.store import Store
from blendrun.service.validation import Limits

_Object = TypeVar("_Object", FileObject, BatchObject)
_Handler = Callable[[Request, str], Awaitable[Response]]
_CHUNK = 1 << 20
# What can be asked of a list, and what of a new batch.
_PAGES, _CREATED = (
    ("after", "limit", "order"),
    ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"),
)
_MOST_LISTED, _LISTED = {"files": 10_000, "batches": 100}, {"files": 10_000, "batches": 20}


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with. keys: those that are let in. model: the one that answers."""

    store: Store
    desk: Desk
    keys: tuple[str, ...]
    model: str
    limits: Limits
    reports: Reports

    def app(self) -> Starlette:
        """The application; the desk works while it runs."""

        @asynccontextmanager
        async def life(_: Starlette) -> AsyncIterator[None]:
            self.desk.start()
            try:
                yield
            finally:
                await run_in_threadpool(self.desk.stop)
                self.store.close()

        routes = [
            Route("/", _page),
            Route("/health", self.health),
            self._route("/v1/models", self.models),
            self._route("/v1/files", self.upload, "POST"),
            self._route("/v1/files", self.list_files, query=(*_PAGES, "purpose")),
            self._route("/v1/files/{name}", self.file),
            self._route("/v1/files/{name}", self.delete, "DELETE"),
            self._route("/v1/files/{name}/content", self.content),
            self._route("/v1/batches", self.create, "POST"),
            self._route("/v1/batches", self.list_batches, query=_PAGES),
            self._route("/v1/batches/{name}", self.batch),
            self._route("/v1/batches/{name}/cancel", self.cancel, "POST"),
            self._route("/v1/batches/{name}/report", self.report),
            self._route("/v1/batches/{name}/report", self.ticket, "POST"),
            Route("/reports/{ticket}", self.ticketed),
        ]
        return Starlette(routes=routes, lifespan=life, exception_handlers=HANDLERS)

    def _route(self, path: str, handler: _Handler, method: str = "GET", query: tuple[str, ...] = ()) -> Route:
        """query: parameters that the address may have."""

        async def guarded(request: Request) -> Response:
            owner = self._owner(request)
            parameters((name for name, _ in request.query_params.multi_items()), query)
            return await handler(request, owner)

        return Route(path, guarded, methods=[method])

    def _owner(self, request: Request) -> str:
        """Whose the request is. Raises ApiError."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else ""
        found = [each for each in self.keys if hmac.compare_digest(each.encode(), key.encode())]
        if not key or not found:
            raise ApiError(401, "the API key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key")
        return blake2b(found[0].encode(), digest_size=16).hexdigest()

    async def health(self, _: Request) -> Response:
        """Whether batches are still worked on."""
        lives = self.desk.lives
        return json_of(
            {"status": "ok" if lives else "the desk has ended: start the server again"}, 200 if lives else 503
        )

    async def models(self, _: Request, owner: str) -> Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "blendrun"}
        return json_of({"object": "list", "data": [model]})

    async def upload(self, request: Request, owner: str) -> Response:
        whole = bounded(request, self.limits.bytes + FORM_BYTES)
        try:
            async with whole.form(max_files=1, max_fields=8) as form:
                parameters((name for name, _ in form.multi_items()), UPLOADED)
                file, purpose = form.get("file"), form.get("purpose")
                for name, given in (("file", file), ("purpose", purpose)):
                    if given is None:
                        raise missing(name)
                if not isinstance(file, UploadFile):
                    raise ApiError(400, "`file` must be the content of a file, with a name", "file", "invalid_type")
                if purpose != "batch":
                    raise ApiError(400, f"`purpose` must be batch, not {str(purpose)[:80]!r}", "purpose")
                if (file.size or 0) > self.limits.bytes:
                    raise too_large(self.limits.bytes)
                kept = await run_in_threadpool(self._kept, owner, file, form_kept_seconds(form))
        except MultiPartException as error:
            raise ApiError(400, f"the upload is no form that can be read: {error.message}") from error
        return json_of(told(kept))

    def _kept(self, owner: str, upload: UploadFile, lasts: int | None) -> FileObject:
        # A name is only told again, never a path.
        name = Path(upload.filename or "file").name or "file"
        with self.store.new_file(owner, name, "batch", lasts=lasts) as (file, path), path.open("wb") as target:
            while chunk := upload.file.read(_CHUNK):
                target.write(chunk)
        return file

    async def list_files(self, request: Request, owner: str) -> Response:
        purpose = request.query_params.get("purpose")
        found = [each for each in self.store.all_files() if each.owner == owner and purpose in (None, each.purpose)]
        return _listed(request, found, "files")

    async def file(self, request: Request, owner: str) -> Response:
        return json_of(told(self._file(request, owner)))

    async def content(self, request: Request, owner: str) -> Response:
        file = self._file(request, owner)
        content = self.store.content(file)
        try:
            found = content.stat()
        except FileNotFoundError:
            raise ApiError(404, f"there is no content of {file.id} any more", code="not_found") from None
        return FileResponse(content, media_type="application/octet-stream", filename=file.filename, stat_result=found)

    async def delete(self, request: Request, owner: str) -> Response:
        file = self._file(request, owner)
        if not await run_in_threadpool(self.store.delete_file, file):
            raise ApiError(409, "a batch is still to be answered from this file: cancel it, or wait for its end")
        return json_of({"id": file.id, "object": "file", "deleted": True})

    async def create(self, request: Request, owner: str) -> Response:
        asked = await object_of(request)
        parameters(asked, _CREATED)
        name, endpoint, window = (text_of(asked, each) for each in _CREATED[:3])
        if (file := self.store.file_of(owner, name)) is None:
            raise ApiError(400, f"there is no file {name[:80]!r}", "input_file_id")
        if file.purpose != "batch":
            what = f"`input_file_id` is of the purpose {file.purpose}: upload its lines with the purpose batch"
            raise ApiError(400, what, "input_file_id")
        if endpoint not in URLS:
            raise ApiError(400, f"`endpoint` must be one of {', '.join(URLS)}", "endpoint")
        created = now()
        batch = BatchObject(
            id=new_id("batch_"),
            owner=owner,
            endpoint=endpoint,
            input_file_id=file.id,
            completion_window=window,
            created_at=created,
            expires_at=created + window_seconds(window),
            output_expires_after=kept_seconds(asked.get("output_expires_after"), "output_expires_after"),
            metadata=metadata_of(asked.get("metadata")),
        )
        if not await run_in_threadpool(self.desk.take, batch):
            raise ApiError(400, f"there is no file {file.id!r} any more", "input_file_id")
        return json_of(told(batch))

    async def list_batches(self, request: Request, owner: str) -> Response:
        return _listed(request, [each for each in self.store.all_batches() if each.owner == owner], "batches")

    async def batch(self, request: Request, owner: str) -> Response:
        return json_of(told(self._batch(request, owner)))

    async def cancel(self, request: Request, owner: str) -> Response:
        batch = self._batch(request, owner)
        await run_in_threadpool(self.desk.cancel, batch)
        if batch.status not in ("cancelling", "cancelled"):
            raise ApiError(409, f"the batch is {batch.status} and cannot be cancelled")
        return json_of(told(batch))

    async def report(self, request: Request, owner: str) -> Response:
        """The page of a batch's job."""
        return await self._drawn(self._batch(request, owner))

    async def ticket(self, request: Request, owner: str) -> Response:
        """An address for a browser, which sends no key."""
        batch = self._batch(request, owner)
        try:
            return json_of({"url": f"/reports/{await run_in_threadpool(self.reports.ticket, batch)}"})
        except NoReportError as error:
            raise ApiError(404, str(error), code="not_found") from error

    async def ticketed(self, request: Request) -> Response:
        batch = self.reports.taken(request.path_params["ticket"])
        if batch is None:
            raise ApiError(404, "this address was good for one look: open the report from the list again")
        return await self._drawn(batch)

    async def _drawn(self, batch: BatchObject) -> Response:
        try:
            page = await run_in_threadpool(self.reports.page, batch)
        except NoReportError as error:
            raise ApiError(404, str(error), code="not_found") from error
        # It asks nobody for anything.
        policy = (
            "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
        )
        headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Cache-Control": "no-store"}
        return HTMLResponse(page, headers=headers)

    def _file(self, request: Request, owner: str) -> FileObject:
        name = request.path_params["name"]
        return _found(self.store.file_of(owner, name), "file", name)

    def _batch(self, request: Request, owner: str) -> BatchObject:
        name = request.path_params["name"]
        return _found(self.store.batch_of(owner, name), "batch", name)


def _found(found: _Object | None, what: str, name: str) -> _Object:
    if found is None:
        raise ApiError(404, f"there is no {what} {name[:80]!r}", code="not_found")
    return found


def _listed(request: Request, found: list[Any], kind: str) -> Response:
    """A page of objects, the newest first. Raises ApiError."""
    query = request.query_params
    order, asked = query.get("order", "desc"), query.get("limit", str(_LISTED[kind]))
    if order not in ("asc", "desc"):
        raise ApiError(400, "`order` must be asc or desc", "order")
    found = sorted(found, key=lambda each: each.number, reverse=order == "desc")
    limit = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0
    if not 1 <= limit <= _MOST_LISTED[kind]:
        raise ApiError(400, f"`limit` must be a whole number from 1 to {_MOST_LISTED[kind]:,}", "limit")
    if (after := query.get("after")) is not None:
        places = [place for place, each in enumerate(found) if each.id == after]
        if not places:
            raise ApiError(404, f"`after`: there is no {after[:80]!r}", "after")
        found = found[places[0] + 1 :]
    shown = [told(each) for each in found[:limit]]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    return json_of({"object": "list", "data": shown, "has_more": len(found) > limit, **ends})


async def _page(_: Request) -> Response:
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"})
