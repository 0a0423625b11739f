"""What models with a head answer on the real runtime: a line of each url through `blendrun run`, and SGLang's own word.

Weights are random, architectures real, layers two. A job of one such line each is run, one line at a time and without a
cache, and the same texts are given to `sglang.Engine.encode`. Printed: what came of each line, and whether the rewards
are the engine's bit for bit.

    python scripts/heads.py [FOLDER]

Run it in the repository's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from tests.tiny_model import write_tiny_cross_encoder, write_tiny_model, write_tiny_reward_model

MODELS: dict[str, Callable[[Path], Path]] = {
    "Qwen2ForRewardModel": write_tiny_reward_model,
    "LlamaForSequenceClassification, 1 label": lambda folder: write_tiny_model(folder, labels=1),
    "LlamaForSequenceClassification, 3 labels": lambda folder: write_tiny_model(folder, labels=3),
    "BertForSequenceClassification, 1 label": write_tiny_cross_encoder,
    "BertForSequenceClassification, 3 labels": lambda folder: write_tiny_cross_encoder(folder, labels=3),
}
TEXTS = ["The sky is blue.", "The harbour office opens at six.", "A reward is one number."]
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"items {number}": ("/v1/score", {"items": [text]}) for number, text in enumerate(TEXTS)},
    "items with labels": ("/v1/score", {"query": "The sky", "items": [" is blue."], "label_token_ids": [5]}),
    "pairs": ("/v1/score", {"text_1": "What is blue?", "text_2": TEXTS}),
    "rerank": ("/v1/rerank", {"query": "What is blue?", "documents": TEXTS}),
    "classify": ("/v1/classify", {"input": TEXTS}),
}
# So that each text is alone in its step for both.
_ALONE = {"disable_radix_cache": True, "max_running_requests": 1, "max_total_tokens": 4096}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where models and jobs are kept; default: nowhere")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        for number, (name, write) in enumerate(MODELS.items()):
            place = folder / str(number)
            model = write(place / "model")
            print(name)
            answers = _run(model, place)
            for line in LINES:
                print(f"  {line}: {answers[line]}")
            rewards = [answers[f"items {each}"] for each in range(len(TEXTS))]
            if isinstance(rewards[0], list):
                equal = [[vector] for vector in _encoded(model)] == rewards
                print(f"  as sglang.Engine.encode, bit for bit: {equal}")


def _run(model: Path, folder: Path) -> dict[str, Any]:
    """By line: its numbers, or its error's message."""
    job, output = folder / "job.jsonl", folder / "out.jsonl"
    lines = ({"custom_id": name, "url": url, "body": body} for name, (url, body) in LINES.items())
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [f"--engine-arg={name}={json.dumps(value)}" for name, value in _ALONE.items()]
    command = [sys.executable, "-m", "blendrun", "run", str(job), "-o", str(output), "--model", str(model)]
    done = subprocess.run([*command, "--device", "cpu", "--threads", "1", *asked], capture_output=True, text=True)
    errors = output.with_name("out.jsonl.errors.jsonl")
    found: dict[str, Any] = {}
    for path in (output, errors):
        for text in path.read_text().splitlines() if path.exists() else ():
            line = json.loads(text)
            found[line["custom_id"]] = line["error"]["message"] if line["error"] else _numbers(line["response"]["body"])
    if len(found) < len(LINES):
        sys.exit(done.stderr)
    return found


def _numbers(body: dict[str, Any]) -> Any:
    if "scores" in body:
        return body["scores"]
    if "results" in body:
        return [(each["index"], each["relevance_score"]) for each in body["results"]]
    return [each.get("score", each.get("probs")) for each in body["data"]]


def _encoded(model: Path) -> list[Any]:
    asked = {
        "model": str(model),
        "lines": [],
        "score": [],
        "encode": TEXTS,
        "server_args": _ALONE | {"is_embedding": True},
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.read_engine"],
        input=json.dumps(asked).encode(),
        env=os.environ | environment(EngineSettings(str(model), "cpu", threads=1)),
        capture_output=True,
        check=True,
    )
    told = (line.partition(" ") for line in done.stdout.decode().splitlines())
    return [json.loads(said) for what, _, said in told if what == "ENCODED"]


if __name__ == "__main__":
    main()
