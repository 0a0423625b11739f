"""A real server on a real socket that speaks OpenAI's API and misbehaves as it is told."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any

from cut_server import CutServer

MODEL = "served-model"


@dataclass(frozen=True)
class Status:
    """Answer with this status and body."""

    code: int
    body: bytes = b'{"error": {"message": "no"}}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HangUp:
    """Close the connection without a word; reset: with a RST."""

    reset: bool = False


@dataclass(frozen=True)
class Stall:
    """Say nothing, as long as there is a server."""


@dataclass(frozen=True)
class Half:
    """Begin an answer and hang up in the middle of it."""


Fault = Status | HangUp | Stall | Half
# Of a request's text and how often it was asked before: what goes wrong, or None for a good answer.
Script = Callable[[str, int], Fault | None]


@dataclass
class Seen:
    """asked: texts in the order of their arrival. bodies: of the requests. most: at work at a time."""

    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: Counter[str] = field(default_factory=Counter)
    most: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def faulty_server(
    script: Script = lambda text, times: None,
    *,
    port: int = 0,
    work: float = 0.0,
    models: Any = (MODEL,),
    pages: Mapping[str, bytes] = MappingProxyType({}),
) -> Iterator[tuple[str, Seen]]:
    """Its address and what it saw. work: seconds that a good answer takes. pages: what it says elsewhere, by path."""
    seen, over = Seen(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path in pages:
                self._send(200, pages[self.path])
            elif self.path == "/v1/models":
                listed = [{"id": name} if isinstance(name, str) else name for name in models]
                self._send(200, json.dumps({"data": listed}).encode())
            else:
                self._send(404, b"{}")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
            with seen.lock:
                seen.asked.append(text)
                seen.bodies.append(body)
                seen.headers.append(dict(self.headers))
                times = seen.times[text]
                seen.times[text] += 1
                seen.running += 1
                seen.most = max(seen.most, seen.running)
            try:
                self._answer(text, times)
            finally:
                with seen.lock:
                    seen.running -= 1

        def _answer(self, text: str, times: int) -> None:
            fault = script(text, times)
            match fault:
                case None:
                    time.sleep(work)
                    self._send(200, answer(text))
                case Status(code, body, headers):
                    self._send(code, body, headers)
                case HangUp(reset):
                    if reset:
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close() if reset else self.connection.shutdown(socket.SHUT_RDWR)
                case Stall():
                    over.wait()
                    self.close_connection = True
                case Half():
                    content = answer(text)
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[:20])
                    self.close_connection = True

        def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = CutServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        # As where a process ends: nobody listens when the connections break.
        over.set()
        server.cut()
        thread.join()


def answer(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"about {text}"}, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
