"""A server of files that takes GET with ranges and conditions, and PUT, and fails as it is told, request by request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit

# What to do with a request in the place of answering it.
Fault = Callable[["Handler"], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: method, path with query, headers, bytes of its body that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Objects:
    """files: by path. faults: one is taken for each request, None is none. asked: all requests so far."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: deque[Fault | None] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True

    def methods(self) -> list[str]:
        return [each.method for each in self.asked]


class Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def do_GET(self) -> None:
        self._note()
        if (fault := self._fault()) is not None:
            fault(self)
            return
        content = self.objects.files.get(urlsplit(self.path).path)
        if content is None:
            self.answer(404)
            return
        tag = f'"{md5(content, usedforsecurity=False).hexdigest()}"' if self.objects.tags else ""
        if tag and self.headers.get("If-None-Match") == tag:
            self.answer(304)
            return
        headers = {"ETag": tag} if tag else {}
        wanted = self.headers.get("Range", "")
        if self.objects.ranges and wanted and self.headers.get("If-Range") in (None, tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], headers)
            return
        self.answer(200, content, headers)

    def do_PUT(self) -> None:
        if (fault := self._fault()) is not None:
            fault(self)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note(body)
        self.objects.files[urlsplit(self.path).path] = body
        self.answer(200)

    def _note(self, body: bytes = b"") -> None:
        self.objects.asked.append(Asked(self.command, self.path, dict(self.headers), body))

    def _fault(self) -> Fault | None:
        return self.objects.faults.popleft() if self.objects.faults else None

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        pass


def status(code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Fault:
    """That status; of a PUT without having read it."""

    def fault(handler: Handler) -> None:
        if handler.command == "PUT":
            handler._note()
        handler.answer(code, body, headers)

    return fault


def redirect(code: int, location: str) -> Fault:
    return status(code, headers={"Location": location})


def cut_after(count: int, *, wait: Event | None = None, reached: Event | None = None) -> Fault:
    """The first bytes of the file, and its whole length; then the end, or a wait."""

    def fault(handler: Handler) -> None:
        content = handler.objects.files[urlsplit(handler.path).path]
        tag = f'"{md5(content, usedforsecurity=False).hexdigest()}"'
        start = 0
        if wanted := handler.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers = {"ETag": tag, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            handler.answer(206, content[start : start + count], headers, len(content) - start)
        else:
            handler.answer(200, content[:count], {"ETag": tag}, len(content))
        handler.wfile.flush()
        if reached is not None:
            reached.set()
        if wait is not None:
            wait.wait(60)

    return fault


def read_then_die(count: int | None, *, wait: Event | None = None, reached: Event | None = None) -> Fault:
    """So many bytes of a PUT are read, None for all, and nothing is answered."""

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        length = int(handler.headers["Content-Length"])
        handler._note(handler.rfile.read(length if count is None else min(count, length)))
        if reached is not None:
            reached.set()
        if wait is not None:
            wait.wait(60)

    return fault


@contextmanager
def serving(**files: bytes) -> Iterator[Objects]:
    """A server on loopback. files: by name."""
    objects = Objects(files={f"/{name}": content for name, content in files.items()})
    handler = type("OfObjects", (Handler,), {"objects": objects})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        objects.url = f"http://127.0.0.1:{server.server_port}"
        yield objects
        server.shutdown()
