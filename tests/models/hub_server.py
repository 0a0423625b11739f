"""A hub on this machine, as huggingface_hub asks it: one small open model, one gated, and nothing else."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from types import TracebackType

COMMIT = "a" * 40
FILES = {
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"]}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "original/consolidated.pth": b"the weights again",
}


class HubServer:
    """`url` is what HF_ENDPOINT takes; `requests` are the paths asked for so far."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"requests": self.requests})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes:
        """Send status and headers; return the body."""
        path = self.path.partition("?")[0]
        if path.startswith(("/api/models/owner/", "/owner/")):
            self.requests.append(path)
        status, headers, body = _answer(path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        return body

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


def _answer(path: str) -> tuple[int, dict[str, str], bytes]:
    known = "/owner/tiny" in path or "/owner/gated" in path
    if path.startswith("/api/models/") and known:
        return 200, {"Content-Type": "application/json"}, _tree() if "/tree/" in path else _model_info()
    if not known or "/resolve/" not in path:
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
    if "/gated/" in path:
        return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"}, b""
    content = FILES[path.split("/resolve/")[1].partition("/")[2]]
    return 200, {"ETag": f'"{_sha(content)}"', "X-Repo-Commit": COMMIT}, content


def _model_info() -> bytes:
    siblings = [{"rfilename": name} for name in FILES]
    return json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode()


def _tree() -> bytes:
    rows = [
        {"type": "file", "path": name, "size": len(content), "oid": _sha(content)} for name, content in FILES.items()
    ]
    return json.dumps(rows).encode()


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
