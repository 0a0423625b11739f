"""What blendrun's feeding costs: `blendrun run --order given` against plain `sglang.Engine.generate` on the same list.

Both answer the same prompts with the same engine arguments, environment and hooks, in processes of their own, in turns.
Outputs have a fixed length, so both do the same work. Reported: seconds from the first request to the last answer, the
ratio of the throughputs of each pair, and its median.

    python scripts/bench/feeding.py --pairs 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import available_cores, detect_platform, environment, server_args
from blendrun.models.resolve import resolve_model

_PLAIN = """
import json, sys, time
if __name__ == "__main__":
    import blendrun.engine.cpu.lean
    from sglang.srt.entrypoints.engine import Engine
    asked = json.load(open(sys.argv[1]))
    engine = Engine(**asked["server_args"])
    engine.generate(input_ids=[1], sampling_params={"max_new_tokens": 1, "temperature": 0})
    begun = time.monotonic()
    answers = engine.generate(prompt=asked["prompts"], sampling_params=asked["sampling"])
    seconds = time.monotonic() - begun
    tokens = sum(answer["meta_info"]["completion_tokens"] for answer in answers)
    cached = sum(answer["meta_info"]["cached_tokens"] for answer in answers)
    print("RESULT " + json.dumps({"seconds": seconds, "output": tokens, "cached": cached}))
    engine.shutdown()
"""


def prompts(requests: int) -> list[str]:
    """Groups of four share a prefix of about 150 tokens, in given order."""
    passage = "The ferry leaves the eastern quay every forty minutes and takes two cars and thirty people. " * 8
    return [f"Note {place // 4}. {passage}Question {place % 4}: when does it leave?" for place in range(requests)]


def run_plain(folder: Path, texts: list[str], settings: EngineSettings, output_tokens: int) -> dict[str, Any]:
    script, asked = folder / "plain.py", folder / "asked.json"
    script.write_text(_PLAIN, encoding="utf-8")
    sampling = {"temperature": 0, "max_new_tokens": output_tokens, "ignore_eos": True}
    arguments = server_args(settings) | {"log_level": "error"}
    asked.write_text(json.dumps({"server_args": arguments, "prompts": texts, "sampling": sampling}), encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, str(script), str(asked)],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit(finished.stderr[-4000:])
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def run_blendrun(folder: Path, texts: list[str], model: str, output_tokens: int) -> dict[str, Any]:
    job, output = folder / "job.jsonl", folder / "ours.jsonl"
    body = {"model": model, "temperature": 0, "max_tokens": output_tokens, "ignore_eos": True}
    lines = [
        {"custom_id": f"{place}", "method": "POST", "url": "/v1/completions", "body": {**body, "prompt": text}}
        for place, text in enumerate(texts)
    ]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("blendrun")), "run", str(job), "--model", model]
    subprocess.run([*command, "--order", "given", "-q", "-o", str(output)], check=True)
    summary = json.loads((folder / f"{output.name}.blendrun" / "summary.json").read_text(encoding="utf-8"))
    tokens = summary["tokens"]
    return {"seconds": summary["seconds"]["run"], "output": tokens["output"], "cached": tokens["cached"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=192, help="more than blendrun's window of 160")
    parser.add_argument("--output-tokens", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    chosen = parser.parse_args()
    platform = detect_platform()
    model = resolve_model(chosen.model, platform=platform)
    settings = EngineSettings(str(model.path), platform, available_cores())
    texts = prompts(chosen.requests)
    bare = partial(run_plain, texts=texts, settings=settings, output_tokens=chosen.output_tokens)
    blended = partial(run_blendrun, texts=texts, model=chosen.model, output_tokens=chosen.output_tokens)
    ratios = []
    print(f"{'pair':>4} {'plain s':>8} {'blendrun s':>10} {'cached':>13} {'throughput ratio':>16}")
    for pair in range(chosen.pairs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # In turns, so that a slow spell of the machine does not always meet the same side.
            if pair % 2:
                ours, plain = blended(folder), bare(folder)
            else:
                plain, ours = bare(folder), blended(folder)
        ratio = (ours["output"] / ours["seconds"]) / (plain["output"] / plain["seconds"])
        ratios.append(ratio)
        cached = f"{plain['cached']}/{ours['cached']}"
        print(f"{pair:>4} {plain['seconds']:>8.1f} {ours['seconds']:>10.1f} {cached:>13} {ratio:>16.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (blendrun over plain; target at least 0.97)")


if __name__ == "__main__":
    main()
