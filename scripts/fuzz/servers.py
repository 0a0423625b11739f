"""Servers whose answers are changed at every level, by a grammar: what comes of a run on them, and of its memory.

python scripts/fuzz/servers.py --seconds 600

Each round is a run of a few lines on a server that answers a good answer changed once or several times: values, shapes,
bytes, heads, packing. It must end with 0, 3 or 69, with each line once in the output or the errors file where it ends
with 0 or 3, with JSON that can be read, and without more memory than the rounds before. The rounds run in one process,
so that what is kept shows, and the servers in another: each thread of theirs has a heap of its own, which grows. Exit
code 1 where a promise was broken; the seed gives the same answers again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from blendrun.cli import main as blendrun

LINES = 6
# Rounds between two looks at the memory.
_LOOKS = 100
_ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    10**30,
    "",
    "x",
    "\x1b[2J",
    "\u2028",
    "9" * 400,
    [],
    {},
    [[]],
)
_RAW = (
    b"NaN",
    b"1e999",
    b"-",
    b'"',
    b"\\ud800",
    b'"\\ud800"',
    b"\xff\xfe",
    b"\x00",
    b"[" * 2000,
    b"{}," * 3000,
    b"\r\n\t",
)
_HEADERS = ("Content-Type", "Retry-After", "Content-Encoding", "Transfer-Encoding", "Location", "Set-Cookie", "X-Odd")
_VALUES = (
    "text/html; charset=utf-7",
    "1000000000",
    "gzip",
    "br",
    "deflate",
    "nan",
    "http://[",
    "a=" + "b" * 4000,
    "\xe9",
)
_STATUSES = (200,) * 14 + (201, 204, 301, 400, 404, 413, 422, 429, 500, 503, 599)


def good(text: str, choices: int = 1) -> dict[str, Any]:
    one = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [one] * choices, "usage": usage}


def changed(chance: Random, value: Any) -> Any:
    """The value, with one place of it changed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        if chance.random() < 0.15:
            return {key: each for key, each in value.items() if key != name}
        return value | {name: changed(chance, value[name])}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        if chance.random() < 0.3:
            return value[:place] + [value[place]] * chance.choice((0, 2, 50)) + value[place + 1 :]
        return [*value[:place], changed(chance, value[place]), *value[place + 1 :]]
    return chance.choice((*_ODD, {"error": value}, [value], str(value)))


def body(chance: Random, value: Any) -> bytes:
    """JSON of it, written in one way or another, or nearly JSON."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        value = changed(chance, value)
    text = json.dumps(value, indent=chance.choice((None, None, 1, "\t")), ensure_ascii=chance.random() < 0.5)
    content = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        place = chance.randrange(len(content) + 1)
        content = content[:place] + chance.choice(_RAW) + content[place + chance.choice((0, 0, 1, 5)) :]
    if chance.random() < 0.05:
        content = content[: chance.randrange(len(content) + 1)]
    if chance.random() < 0.03:
        content += b" " * (9 << 20)
    return content


class Server(ThreadingHTTPServer):
    """Answers as its seed says; one for a round."""

    daemon_threads = True

    def __init__(self, seed: int) -> None:
        self.chance, self.lock = Random(seed), threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            chance = Random(self.server.chance.randrange(2**32))
        if self.path == "/v1/models":
            owner = chance.choice(("sglang", "vllm", "llamacpp", "x", None))
            listed = {"data": [{"id": "m", "owned_by": owner, "max_model_len": 4096}]}
            content = body(chance, listed) if chance.random() < 0.3 else json.dumps(listed).encode()
        else:
            facts = dict.fromkeys(("internal_states", "version", "context_length", "total_slots", "build_info"), 7)
            content = body(chance, facts)
        self.reply(chance, content, 200)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            chance = Random(self.server.chance.randrange(2**32))
        if chance.random() < 0.4:
            self.reply(chance, json.dumps(good("fine", asked.get("n") or 1)).encode(), 200)
        elif chance.random() < 0.05:
            self.close_connection = True
        else:
            self.reply(chance, body(chance, good("odd", asked.get("n") or 1)), chance.choice(_STATUSES), odd=True)

    def reply(self, chance: Random, content: bytes, status: int, *, odd: bool = False) -> None:
        headers: dict[str, str] = {}
        if odd and chance.random() < 0.2:
            headers[chance.choice(_HEADERS)] = chance.choice(_VALUES)
        if chance.random() < 0.2:
            name = chance.choice(("gzip", "deflate"))
            content = gzip.compress(content, 1) if name == "gzip" else zlib.compress(content, 1)
            headers["Content-Encoding"] = name
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            stated = len(content) if chance.random() < 0.97 else chance.choice((0, len(content) // 2, len(content) + 9))
            self.send_header("Content-Length", str(stated))
            self.end_headers()
            self.wfile.write(content)
            if stated != len(content):
                self.close_connection = True


def serve() -> None:
    """The process of the servers: for each seed that it reads a line of, a new one, whose port it says."""
    for line in sys.stdin:
        server = Server(int(line))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        # Whatever comes then says that it is not wanted any more.
        sys.stdin.readline()
        server.shutdown()
        server.server_close()


class Servers:
    """That process, from here."""

    def __init__(self) -> None:
        words = [sys.executable, __file__, "--serve"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def server(self, seed: int) -> Iterator[str]:
        """The address of one of that seed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        try:
            yield f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        finally:
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def end(self) -> None:
        self._process.communicate()


def one(seed: int, folder: Path, servers: Servers) -> tuple[int, str]:
    """Exit code of a round, and what is broken: "" for nothing."""
    jobs, out = folder / "jobs.jsonl", folder / "a.jsonl"
    chance = Random(seed)
    with jobs.open("w") as file:
        for row in range(LINES):
            fields = {
                "messages": [{"role": "user", "content": str(row)}],
                "max_tokens": 5,
                "n": chance.choice((1, 1, 3)),
            }
            file.write(json.dumps({"custom_id": str(row), "url": "/v1/chat/completions", "body": fields}) + "\n")
    settings = ("wait=0.2", "tries=2", "backoff=0.01", "timeout=5", "answer_bytes=1000000")
    words = [word for setting in settings for word in ("--engine-arg", setting)]
    with servers.server(seed) as address:
        try:
            blendrun(["run", "-q", str(jobs), "-o", str(out), "--engine", address, "--max-restarts", "0", *words])
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001  # as the interpreter does
            return 1, traceback.format_exc()
    return code, _wrong(code, out)


def _wrong(code: int, out: Path) -> str:
    if code not in (0, 3, 69):
        return f"exit code {code}"
    if code == 69:
        return ""
    errors = Path(f"{out}.errors.jsonl")
    lines = out.read_text().splitlines() + (errors.read_text().splitlines() if errors.exists() else [])
    try:
        ids = sorted(json.loads(line)["custom_id"] for line in lines)
    except ValueError as error:
        return f"a line is no JSON: {error}"
    return "" if ids == [str(row) for row in range(LINES)] else f"not every line once: {ids}"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return
    servers = Servers()
    begun, rounds, ends = time.monotonic(), 0, Counter[int]()
    resident: list[float] = []
    while time.monotonic() - begun < asked.seconds:
        seed = asked.seed * 1_000_000 + rounds
        with TemporaryDirectory(prefix="blendrun-fuzz-") as folder:
            code, wrong = one(seed, Path(folder), servers)
        ends[code] += 1
        rounds += 1
        if wrong:
            sys.exit(f"seed {seed}: {wrong}")
        if rounds % _LOOKS == 0:
            resident.append(_resident_mib())
    servers.end()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{rounds} rounds of {LINES} lines in {time.monotonic() - begun:.0f} s, ended with "
        f"{', '.join(f'{code}: {count}' for code, count in sorted(ends.items()))}; "
        f"MiB resident every {_LOOKS} rounds: {', '.join(f'{each:.0f}' for each in resident)}; {peak:.0f} at most\n"
    )


if __name__ == "__main__":
    main()
