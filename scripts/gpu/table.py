"""Orders on overlap modes on one GPU, in ten minutes: a mix balanced for the card, Llama-3-8B with dummy weights.

    python scripts/gpu/table.py --hardware h100-sxm --out gpu-table              # on a GPU, no weights needed
    python scripts/gpu/table.py --small --out gpu-table                          # the same on the CPU runtime, tiny

Dummy weights say nothing about answers and everything about time. The mix has three kinds of request, as the paper's
(docs/paper.md#workloads) but shorter, so that a run takes seconds: compute-heavy (long prompt, short answer),
memory-heavy (short prompt, long answer), and such that share a prefix; their numbers are solved for the density and the
sharing asked for.
Prompts are token ids, answers run to their bound. Writes job.jsonl, table.json, table.txt and table.png into --out,
with all records and step logs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson

from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.mix import TraceCost, solve_mix
from blendrun.cost.paper import paper_compute_seconds, paper_memory_seconds
from blendrun.models.card import ModelCard
from blendrun.models.cards import load_card
from blendrun.models.resolve import resolve_model
from blendrun.names import OrderName

# (prompt tokens, of these shared by a group, output tokens) by kind.
LARGE = {"compute": (1536, 0, 16), "sharing": (1024, 896, 4), "memory": (64, 0, 1024)}
SMALL = {"compute": (160, 0, 2), "sharing": (96, 80, 2), "memory": (16, 0, 48)}
GROUP = 24
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-table"))
    parser.add_argument("--hardware", default="h100-sxm", help="card whose rates balance the mix")
    parser.add_argument("--requests", type=int, help="of the first two kinds; default 1200, small: 16")
    # By a CPU's rates such short requests are all far above 1.
    parser.add_argument("--density", type=float, help="compute over memory seconds at peak rates; default 1, small 160")
    parser.add_argument("--sharing", type=float, default=0.3)
    parser.add_argument("--kv-tokens", type=int, help="default 200,000, small: 2048")
    parser.add_argument("--orders", default=",".join(OrderName))
    parser.add_argument("--overlap", help="default exclusive,mixed,pdmux; small: exclusive,mixed")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--engine-arg", action="append", default=[], metavar="K=V")
    parser.add_argument("--small", action="store_true", help="SmolLM2-135M on the CPU")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    kinds, model = (SMALL, load_card("smollm2-135m")) if asked.small else (LARGE, load_card("llama-3-8b"))
    hardware = "cpu" if asked.small else asked.hardware
    requests = asked.requests or (16 if asked.small else 1200)
    density = asked.density or (160.0 if asked.small else 1.0)
    counts = write_job(asked.out / "job.jsonl", kinds, model, hardware, requests, density, asked.sharing)
    print(f"{sum(counts.values())} requests: {counts}", flush=True)
    bench(asked, "smollm2-135m" if asked.small else str(dummy_model(asked.out / "llama-3-8b-dummy")), hardware)


def write_job(
    path: Path,
    kinds: dict[str, tuple[int, int, int]],
    model: ModelCard,
    hardware: str,
    requests: int,
    density: float,
    sharing: float,
) -> dict[str, int]:
    """Returns requests of each kind. Random ids below 40,000, which every tokenizer here has."""
    costs = {name: cost(*kind, model, hardware) for name, kind in kinds.items()}
    mix = solve_mix(
        costs["compute"], costs["sharing"], costs["memory"], requests=requests, density=density, shared=sharing
    )
    counts = {"compute": round(mix.compute), "sharing": round(mix.sharing), "memory": max(round(mix.memory), 1)}
    rng = np.random.default_rng(0)
    lines = []
    for name, (prompt, shared, output) in kinds.items():
        for number in range(counts[name]):
            if number % GROUP == 0:
                head = rng.integers(1000, 40_000, shared)
            ids = [*head.tolist(), *rng.integers(1000, 40_000, prompt - shared).tolist()]
            body = {"prompt": ids, "max_tokens": output, "ignore_eos": True, "temperature": 0}
            lines.append({"custom_id": f"{name}-{number}", "url": "/v1/completions", "body": body})
    path.write_bytes(b"".join(orjson.dumps(lines[place]) + b"\n" for place in rng.permutation(len(lines))))
    return counts


def cost(prompt: int, shared: int, output: int, model: ModelCard, hardware: str) -> TraceCost:
    """By the paper's formulas at peak rates; a group's shared prefix is computed once."""
    peak = machine(load_hardware(hardware), 1, "peak")
    saved = shared * (GROUP - 1) / GROUP
    compute = paper_compute_seconds(
        float(prompt - saved), float(output), model.parameters_total, model.hidden_size, model.layers, peak.flops, False
    )
    width = model.kv_heads * model.head_dim
    memory = paper_memory_seconds(float(prompt), float(output), width, model.layers, peak.bandwidth)
    return TraceCost(float(prompt), saved, float(compute), float(memory))


def dummy_model(folder: Path) -> Path:
    """Dimensions of Llama-3-8B with the tokenizer of SmolLM2: ids go in, so any will do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA, indent=1))
    source = resolve_model("smollm2-135m", platform="cpu").path
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    return folder


def bench(asked: argparse.Namespace, model: str, hardware: str) -> None:
    overlaps = asked.overlap or ("exclusive,mixed" if asked.small else "exclusive,mixed,pdmux")
    tokens = asked.kv_tokens or (2048 if asked.small else 200_000)
    arguments = list(asked.engine_arg)
    if not asked.small:
        # FlashAttention-3 may be left out of the kernel wheel of a machine without network.
        arguments = ["load_format=dummy", "attention_backend=triton", "sampling_backend=pytorch", *arguments]
    command = [
        str(Path(sys.executable).with_name("blendrun")), "bench", "live", str(asked.out / "job.jsonl"),
        "--model", model, "--orders", asked.orders, "--overlap", overlaps, "--kv-tokens", str(tokens),
        "--repeat", str(asked.repeat), "--device", "cpu" if asked.small else "gpu",
        "--keep", str(asked.out / "runs"), "--plot", str(asked.out / "table.png"), "--json",
        *(word for argument in arguments for word in ("--engine-arg", argument)),
    ]  # fmt: skip
    if not asked.small:
        command += ["--hardware", hardware]
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    (asked.out / "table.json").write_bytes(done.stdout)
    table = "\n".join(
        f"{row['order']:>11} {row['overlap']:>9} {row['median']:8.1f} s {row['total_per_second']:9.0f} tok/s "
        f"{row['hit_rate']:6.1%} cached  {row['over_best_simple'] or 0:5.2f}x best simple"
        for row in json.loads(done.stdout)["rows"]
    )
    (asked.out / "table.txt").write_text(f"{table}\n")
    print(f"{table}\n{time.monotonic() - begun:.0f} s in all; engine arguments: {' '.join(arguments) or 'none'}")


if __name__ == "__main__":
    main()
