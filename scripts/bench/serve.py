"""Two batches over the same documents: planned together, and one after the other. `blendrun serve` on the real engine.

    python scripts/bench/serve.py [--documents 6] [--words 300] [--rounds 3]

Each batch asks one question of each document, another one each. Seconds from the first upload to the last answer, and
prompt tokens found in the cache; the engine is loaded before. In turns: together, one after the other, and so on.
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
from pathlib import Path
from typing import Any

import numpy as np
from openai import OpenAI

_URL: Any = "/v1/chat/completions"
_WORDS = Path(__file__).read_text().split()
_QUESTIONS = ("Which words come first?", "Which words come last?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--words", type=int, default=300, help="of each document")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blendrun-serve-") as folder:
        store = Path(folder) / "store"
        words = ["serve", "--model", asked.model, "--store", str(store), "--port", "0", "--api-key", "key"]
        main_module = "from blendrun.cli import main; main()"
        server = subprocess.Popen([sys.executable, "-c", main_module, *words], stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            found = re.search(r" at (http://[\d.]+:\d+)", server.stderr.readline())
            assert found is not None
            client = OpenAI(base_url=f"{found[1]}/v1", api_key="key")
            _ended(client, [_batch(client, ["hello"], "hi")])
            rows: dict[str, list[tuple[float, int, int]]] = {"together": [], "one after the other": []}
            for number in range(2 * asked.rounds):
                how = list(rows)[number % 2]
                rows[how].append(_round(client, _documents(number, asked), together=how == "together"))
            _print(rows)
        finally:
            server.terminate()
            server.wait()


def _documents(seed: int, asked: argparse.Namespace) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(_WORDS, asked.words)) for _ in range(asked.documents)]


def _round(client: OpenAI, documents: list[str], *, together: bool) -> tuple[float, int, int]:
    """Seconds, prompt tokens and those of them that were cached."""
    begun = time.monotonic()
    batches = []
    for question in _QUESTIONS:
        batches.append(_batch(client, documents, question))
        if not together:
            _ended(client, batches[-1:])
    usages = [batch.usage for batch in _ended(client, batches)]
    seconds = time.monotonic() - begun
    cached = sum(usage.input_tokens_details.cached_tokens for usage in usages)
    return seconds, sum(usage.input_tokens for usage in usages), cached


def _batch(client: OpenAI, documents: list[str], question: str) -> Any:
    lines = [
        {
            "custom_id": f"{place}",
            "method": "POST",
            "url": _URL,
            "body": {
                "messages": [{"role": "user", "content": f"{document}\n\n{question}"}],
                "max_tokens": 16,
                "temperature": 0,
            },
        }
        for place, document in enumerate(documents)
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


def _print(rows: dict[str, list[tuple[float, int, int]]]) -> None:
    print("| two batches | seconds, median | all | prompt tokens | cached |\n|---|---|---|---|---|")
    for how, found in rows.items():
        seconds = [each[0] for each in found]
        prompt, cached = (sum(each[place] for each in found) for place in (1, 2))
        every = ", ".join(f"{each:.1f}" for each in seconds)
        print(f"| {how} | {statistics.median(seconds):.1f} | {every} | {prompt:,} | {cached / prompt:.1%} |")


if __name__ == "__main__":
    main()
