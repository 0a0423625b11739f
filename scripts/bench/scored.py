"""Scores of prompts that begin alike, as evaluation harnesses ask for them: `blendrun.Engine` and `sglang.Engine`.

    python scripts/bench/scored.py

Two calls of each engine, all prompts in one: the log probabilities of whole prompts of 300 tokens, one token generated.
*examples*: 40 prompts behind the same 250 tokens. *choices*: ten of them, each with four ends of one token. The first
calls warm up; the second ones, on other tokens, count. Each engine is a process of its own, and so is each round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import available_cores, detect_platform, environment, server_args
from blendrun.models.resolve import resolve_model

_SCRIPT = """
import json, sys, time
if __name__ == "__main__":
    asked = json.load(open(sys.argv[1]))
    if asked["server_args"] is None:
        import blendrun
        engine = blendrun.Engine(asked["model"])
    else:
        import blendrun.engine.cpu.lean
        from sglang.srt.entrypoints.engine import Engine
        engine = Engine(**asked["server_args"])
    for name, prompts in asked["calls"]:
        begun = time.monotonic()
        answers = engine.generate(input_ids=prompts, sampling_params={"temperature": 0, "max_new_tokens": 1},
                                  return_logprob=True, top_logprobs_num=2, logprob_start_len=0)
        seconds = time.monotonic() - begun
        facts = [answer["meta_info"] for answer in answers]
        values = [[value for value, *_ in each["input_token_logprobs"][1:]] for each in facts]
        print("RESULT " + json.dumps({"name": name, "seconds": seconds, "values": values,
                                      "cached": sum(each["cached_tokens"] for each in facts)}), flush=True)
    engine.shutdown()
"""


def calls() -> list[tuple[str, list[list[int]]]]:
    """Warm-up calls first. Ids below 40,000, which every vocabulary has."""
    draw, found = random.Random(4), []

    def tokens(count: int) -> list[int]:
        return [draw.randrange(100, 40_000) for _ in range(count)]

    for kind in ("warm-up", ""):
        shared = tokens(250)
        questions = [shared + tokens(49) for _ in range(10)]
        found.append((f"examples {kind}".strip(), [shared + tokens(50) for _ in range(40)]))
        found.append((f"choices {kind}".strip(), [[*each, end] for each in questions for end in (200, 201, 202, 203)]))
    return found


def run(asked: dict[str, Any], env: dict[str, str]) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        script, words = Path(folder) / "engine.py", Path(folder) / "asked.json"
        script.write_text(_SCRIPT, encoding="utf-8")
        words.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, str(script), str(words)]
        finished = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    found = [json.loads(line[7:]) for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    if len(found) != len(asked["calls"]):
        sys.exit((finished.stderr + finished.stdout)[-4000:])
    return {each["name"]: each for each in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    platform = detect_platform()
    path = str(resolve_model(asked.model, platform=platform).path)
    settings = EngineSettings(path, platform, available_cores(), server_args={"log_level": "error"})
    wanted: dict[str, Any] = {"model": asked.model, "calls": calls()}
    print(f"{'round':>5} {'engine':>8} {'job':>8} {'seconds':>8} {'cached':>7} {'load':>5}  largest difference")
    for turn in range(asked.rounds):
        plain = run(wanted | {"server_args": server_args(settings)}, environment(settings))
        ours = run(wanted | {"server_args": None}, {})
        for name in ("examples", "choices"):
            pairs = zip(ours[name]["values"], plain[name]["values"], strict=True)
            differ = max(abs(one - other) for two in pairs for one, other in zip(*two, strict=True))
            for engine, found in (("sglang", plain), ("blendrun", ours)):
                cells = f"{found[name]['seconds']:>8.2f} {found[name]['cached']:>7,} {os.getloadavg()[0]:>5.1f}"
                print(f"{turn:>5} {engine:>8} {name:>8} {cells}  {differ:.2g}", flush=True)


if __name__ == "__main__":
    main()
