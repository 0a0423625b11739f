"""A server that speaks OpenAI's API, misbehaves at random and may die at any moment. Standard library only."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from cut_server import CutServer

# How often a request meets each of these.
_FAULTS = {"hang up": 2, "500": 3, "429": 3, "garbage": 2, "half": 1, "odd": 3, "good": 86}


class ChaosServer:
    """asked: texts of the requests since `forget`. Away (`leave`), its connections are cut."""

    def __init__(self, seed: int) -> None:
        self.asked: list[str] = []
        self._chance, self._lock = random.Random(seed), threading.Lock()
        self._port = 0
        self._server: CutServer | None = None
        self.come()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def come(self) -> None:
        """Be there, at the address of before."""
        if self._server is None:
            self._server = CutServer(("127.0.0.1", self._port), self._handler())
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def leave(self) -> None:
        """Die."""
        if (server := self._server) is not None:
            self._server = None
            server.shutdown()
            server.server_close()
            server.cut()

    def forget(self) -> None:
        with self._lock:
            self.asked.clear()

    def _fault(self, text: str) -> str:
        with self._lock:
            self.asked.append(text)
            return self._chance.choices(list(_FAULTS), list(_FAULTS.values()))[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                listed = {"data": [{"id": "chaos", "owned_by": "chaos"}]}
                known = self.path == "/v1/models"
                self.send(200 if known else 404, json.dumps(listed if known else {}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                time.sleep(random.uniform(0.0, 0.04))
                content = _answer(text)
                match outer._fault(text):
                    case "hang up":
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                    case "500" | "429" as code:
                        self.send(int(code), b'{"error": {"message": "chaos"}}', {"Retry-After": "0"})
                    case "garbage":
                        self.send(200, content[: len(content) // 2])
                    case "half":
                        self.send_response(200)
                        self.send_header("Content-Length", str(len(content)))
                        self.end_headers()
                        self.wfile.write(content[:20])
                        self.close_connection = True
                    case "odd":
                        odd = json.loads(content) | {"usage": {"prompt_tokens": 2**40, "completion_tokens": -1}}
                        self.send(200, json.dumps(odd, indent=1).encode() + b"\r\n")
                    case _:
                        self.send(200, content)

            def send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                with suppress(OSError):
                    self.send_response(code)
                    for name, value in (headers or {}).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

        return Handler


def _answer(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"about {text}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
