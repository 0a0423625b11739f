"""A real HTTP server on loopback that serves media, and every way of not serving them."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

PICTURE = bytes(range(256)) * 4
# Nothing answers there; a link-local address as clouds keep their credentials at.
METADATA = "http://169.254.169.254/latest/meta-data"


class MediaServer(ThreadingHTTPServer):
    """url: of the server. seen: how often each path was asked for. at_once: the most requests in work together."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: Counter[str] = Counter()
        self.at_once = self.now = 0
        self.lock = Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: MediaServer

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.seen[self.path] += 1
            server.now += 1
            server.at_once = max(server.at_once, server.now)
        try:
            # /slow/3 as /slow
            getattr(self, f"do_{self.path.split('/')[1].partition('.')[0]}")()
        finally:
            with server.lock:
                server.now -= 1

    def send(self, data: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in ({"Content-Type": "image/png", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def redirect(self, place: str) -> None:
        self.send_response(302)
        self.send_header("Location", place)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_picture(self) -> None:
        self.send(PICTURE)

    def do_plain(self) -> None:
        self.send(PICTURE, **{"Content-Type": 'x" ; evil, image'})

    def do_missing(self) -> None:
        self.send_error(404)

    def do_slow(self) -> None:
        time.sleep(0.2)
        self.send(PICTURE)

    def do_drip(self) -> None:
        """A byte every tenth of a second, for ever."""
        self.send(b"", **{"Content-Length": "1000000"})
        while True:
            self.wfile.write(b"x")
            time.sleep(0.1)

    def do_stated(self) -> None:
        self.send(b"", **{"Content-Length": str(2**40)})

    def do_endless(self) -> None:
        """More than anybody wants, without saying so beforehand."""
        self.send_response(200)
        self.end_headers()
        for _ in range(4096):
            self.wfile.write(bytes(65_536))

    def do_squeezed(self) -> None:
        self.send(b"\x1f\x8b" + bytes(100), **{"Content-Encoding": "gzip"})

    def do_gone(self) -> None:
        """Half an answer, then a reset: the server's machine was switched off."""
        self.send(PICTURE[:100], **{"Content-Length": "1000"})
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def do_elsewhere(self) -> None:
        self.redirect("/picture")

    def do_round(self) -> None:
        self.redirect("/round")

    def do_metadata(self) -> None:
        self.redirect(METADATA)

    def do_file(self) -> None:
        self.redirect("file:///etc/passwd")

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def media_server() -> Iterator[MediaServer]:
    with MediaServer() as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
