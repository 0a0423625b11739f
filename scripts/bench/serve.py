"""Two batches over the same documents for `blendrun serve`, or very many: how long, how much cached, how large.

    python scripts/bench/serve.py [--documents 6] [--words 300] [--rounds 3]
    python scripts/bench/serve.py --documents 40 --words 150 --pool 16000 --apart 12 --rounds 2
    python scripts/bench/serve.py --many

Each of two batches asks one question of each document, another one each. Seconds from the first upload to the last
answer of each, and prompt tokens found in the cache; the engine is loaded before. In turns: sent together, the second
so many seconds after the first (`--apart`), and one after the other. pool: tokens that the engine's cache holds.

many: 1,000 uploads, then batches of 50,000 lines on the replay engine, several to a job, and the server's memory and
the time of its answers as they go on.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from openai import OpenAI

_URL: Any = "/v1/chat/completions"
_WORDS = Path(__file__).read_text().split()
_QUESTIONS = ("Which words come first?", "Which words come last?")
_UPLOADS, _LINES, _BATCHES = 1000, 50_000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--words", type=int, default=300, help="of each document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pool", type=int, help="tokens")
    parser.add_argument("--chunk", type=int, help="tokens of a step of prefill; what waits in the engine goes by it")
    parser.add_argument("--apart", type=float, help="seconds")
    parser.add_argument("--many", action="store_true")
    asked = parser.parse_args()
    if asked.many:
        with _serving(["--engine", "replay"]) as (client, server, _):
            _many(client, server.pid)
        return
    sizes = {"max_total_tokens": asked.pool, "chunked_prefill_size": asked.chunk}
    given = [word for name, size in sizes.items() if size for word in ("--engine-arg", f"{name}={size}")]
    with _serving(["--model", asked.model, *given]) as (client, _, said):
        _ended(client, [_batch(client, ["hello"], "hi")])
        ways = ["together", *([] if asked.apart is None else ["apart"]), "one after the other"]
        rows: dict[str, list[list[float]]] = {way: [] for way in ways}
        for number in range(len(ways) * asked.rounds):
            way = ways[number % len(ways)]
            rows[way].append(_round(client, _documents(number, asked), way, asked.apart))
        _print(rows)
        print("".join(f"\n{line}" for line in said.read_text().splitlines() if "join" in line))


@contextmanager
def _serving(words: list[str]) -> Iterator[tuple[OpenAI, subprocess.Popen[bytes], Path]]:
    """A client, the server, and the file of what it says."""
    with tempfile.TemporaryDirectory(prefix="blendrun-serve-") as folder:
        said = Path(folder) / "said"
        given = ["serve", "--store", f"{folder}/store", "--port", "0", "--api-key", "key", *words]
        with said.open("wb") as file:
            main_module = "from blendrun.cli import main; main()"
            server = subprocess.Popen([sys.executable, "-c", main_module, *given], stderr=file)
        try:
            while (found := re.search(r" at (http://[\d.]+:\d+)", said.read_text())) is None:
                time.sleep(0.05)
            yield OpenAI(base_url=f"{found[1]}/v1", api_key="key"), server, said
        finally:
            server.terminate()
            server.wait()


def _documents(seed: int, asked: argparse.Namespace) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(_WORDS, asked.words)) for _ in range(asked.documents)]


def _round(client: OpenAI, documents: list[str], way: str, apart: float | None) -> list[float]:
    """Seconds of all, of the first and of the second; prompt tokens and those of them that were cached."""
    begun = time.monotonic()
    batches = [_batch(client, documents, _QUESTIONS[0])]
    if way == "apart":
        time.sleep(apart or 0.0)
    elif way != "together":
        _ended(client, batches)
    sent = time.monotonic()
    batches.append(_batch(client, documents, _QUESTIONS[1]))
    usages = [batch.usage for batch in _ended(client, batches)]
    ends = [batch.completed_at for batch in _ended(client, batches)]
    seconds, wall = time.monotonic() - begun, time.time()
    cached = sum(usage.input_tokens_details.cached_tokens for usage in usages)
    first = seconds - (wall - ends[0]) if way != "together" else seconds
    return [seconds, first, seconds - (sent - begun), sum(usage.input_tokens for usage in usages), cached]


def _batch(client: OpenAI, documents: list[str], question: str) -> Any:
    return _sent(client, [f"{document}\n\n{question}" for document in documents])


def _sent(client: OpenAI, prompts: list[str]) -> Any:
    lines = [
        {
            "custom_id": f"{place}",
            "method": "POST",
            "url": _URL,
            "body": {"messages": [{"role": "user", "content": prompt}], "max_tokens": 16, "temperature": 0},
        }
        for place, prompt in enumerate(prompts)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("jobs.jsonl", io.BytesIO(content)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=_URL, completion_window="24h")


def _ended(client: OpenAI, batches: list[Any]) -> list[Any]:
    while True:
        found = [client.batches.retrieve(batch.id) for batch in batches]
        if all(batch.status == "completed" for batch in found):
            return found
        if any(batch.status in ("failed", "expired", "cancelled") for batch in found):
            raise SystemExit(f"a batch ended otherwise: {found}")
        time.sleep(0.05)


def _print(rows: dict[str, list[list[float]]]) -> None:
    titles = ("two batches", "seconds, median", "all", "first", "second", "prompt tokens", "cached")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for how, found in rows.items():
        every, first, second = (", ".join(f"{each[place]:.1f}" for each in found) for place in range(3))
        prompt, cached = (sum(each[place] for each in found) for place in (3, 4))
        median = statistics.median(each[0] for each in found)
        print(f"| {how} | {median:.1f} | {every} | {first} | {second} | {prompt:,.0f} | {cached / prompt:.1%} |")


def _many(client: OpenAI, pid: int) -> None:
    print("| | MiB of the server | upload, ms | list of 20, ms |\n|---|---|---|---|")
    one = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}\n'
    for number in range(1, _UPLOADS + 1):
        begun = time.monotonic()
        client.files.create(file=("one.jsonl", io.BytesIO(one)), purpose="batch")
        if number % 200 == 0 or number == 1:
            _tell(client, pid, f"{number:,} uploads", time.monotonic() - begun)
    for number in range(1, _BATCHES + 1):
        begun = time.monotonic()
        sent = [_sent(client, [f"prompt {place} of {number}" for place in range(_LINES)]) for _ in range(2)]
        upload = (time.monotonic() - begun) / 2
        slowest = 0.0
        while any(each.status != "completed" for each in sent):
            asked = time.monotonic()
            sent = [client.batches.retrieve(each.id) for each in sent]
            slowest = max(slowest, (time.monotonic() - asked) / 2)
            time.sleep(0.02)
        took = time.monotonic() - begun
        what = f"{2 * number} batches of {_LINES:,} lines ({took:.1f} s for two; slowest look {1e3 * slowest:.0f} ms)"
        _tell(client, pid, what, upload)


def _tell(client: OpenAI, pid: int, what: str, upload: float) -> None:
    begun = time.monotonic()
    client.batches.list(limit=20)
    listed = time.monotonic() - begun
    memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert memory is not None
    print(f"| {what} | {int(memory[1]) / 1024:.0f} | {1e3 * upload:.0f} | {1e3 * listed:.1f} |", flush=True)


if __name__ == "__main__":
    main()
