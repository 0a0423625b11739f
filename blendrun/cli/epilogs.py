"""The end of each command's `--help`: examples to copy, and terms that its options use. A test parses the examples.

Keys are a command's words after `blendrun`; the empty one is `blendrun` itself.
"""

from __future__ import annotations

from dataclasses import dataclass

DOCS = "Documentation: docs/index.md in blendrun's repository. Terms: docs/glossary.md."


@dataclass(frozen=True, slots=True)
class Epilog:
    """examples: whole commands. terms: each with what it means."""

    examples: tuple[str, ...]
    terms: tuple[tuple[str, str], ...]


_ORDERS = (
    ("given", "as the file has them"),
    ("shuffled", "mixed at random, the same way each time"),
    ("sorted", "requests with equal beginnings one after the other"),
    ("lof", "longest output first"),
    ("blended", "compute-heavy and memory-heavy requests side by side, beginnings shared"),
)
_OVERLAPS = (
    ("exclusive", "a step of the engine reads prompts or makes tokens"),
    ("mixed", "a step does some of both"),
    ("pdmux", "both at once, each on a part of the GPU"),
)
_REPLAY = ("replay", "an engine without a model, with placeholder answers: to try a job file")

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "blendrun doctor",
        "blendrun plan jobs.jsonl --model qwen2.5-7b",
        "blendrun run jobs.jsonl --model qwen2.5-7b -o answers.jsonl",
        "blendrun report answers.jsonl -o report.html",
    ),
    "run": (
        "blendrun run jobs.jsonl --model qwen2.5-7b -o answers.jsonl",
        "blendrun run reviews.csv -m qwen2.5-7b --prompt-column review -o labels.csv",
        "blendrun run jobs.jsonl -m qwen2.5-7b --tp 2 --deadline 3h50m --strict",
    ),
    "plan": (
        "blendrun plan jobs.jsonl --model qwen2.5-7b",
        "blendrun plan jobs.jsonl -m qwen2.5-7b --hardware h100-sxm,l40s --gpus 1,2",
        "blendrun plan jobs.jsonl -m qwen2.5-7b --report plan.html",
    ),
    "status": ("blendrun status answers.jsonl --watch",),
    "answers": ("blendrun answers answers.jsonl --follow",),
    "report": (
        "blendrun report answers.jsonl -o report.html",
        "blendrun report monday.jsonl tuesday.jsonl",
    ),
    "merge": ("blendrun merge answers.jsonl",),
    "convert": (
        "blendrun convert reviews.csv --prompt-column review -o jobs.jsonl",
        "blendrun convert answers.jsonl -o answers.parquet",
    ),
    "serve": (
        "blendrun serve --model qwen2.5-7b --port 8080",
        "blendrun serve --model qwen2.5-7b --store /data/batches --idle 10m",
        "blendrun serve --engine http://10.0.0.5:30000",
    ),
    "run-batch": ("blendrun run-batch -i in.jsonl -o out.jsonl --model qwen2.5-7b --seed 1",),
    "doctor": ("blendrun doctor",),
    "calibrate": ("blendrun calibrate --model qwen2.5-7b --quick",),
    "synth": ("blendrun synth -o trace.jsonl -m qwen2.5-7b --hardware l40s --requests 2000",),
    "models": ("blendrun models", "blendrun models --json"),
    "hardware": ("blendrun hardware", "blendrun hardware --json"),
    "bench": ("blendrun bench simulate -m qwen2.5-7b --hardware h100-sxm --requests 5000",),
    "bench live": (
        "blendrun bench live jobs.jsonl --model qwen2.5-7b --limit 2000",
        "blendrun bench live jobs.jsonl -m qwen2.5-7b --orders lpm,blended --repeat 1",
        "blendrun bench live jobs.jsonl -m qwen2.5-7b --plot orders.png",
    ),
    "bench simulate": (
        "blendrun bench simulate -m qwen2.5-7b --hardware h100-sxm --requests 5000",
        "blendrun bench simulate jobs.jsonl -m qwen2.5-7b --hardware l40s --gpus 1,2",
        "blendrun bench simulate -m qwen2.5-7b --hardware l40s --rho 0.8:1.4:0.2",
    ),
    "bench tunnel": ("blendrun bench tunnel jobs.jsonl --model qwen2.5-7b --hardware h100-sxm",),
}

TERMS: dict[str, tuple[tuple[str, str], ...]] = {
    "run": (*_ORDERS, *_OVERLAPS, _REPLAY),
    "plan": (*_ORDERS, *_OVERLAPS),
    "serve": (*_ORDERS, *_OVERLAPS, _REPLAY),
    "bench live": (
        *_ORDERS,
        ("dfs-weight, lpm", "SGLang's own orders"),
        ("gated", "sorted, where requests wait for a beginning that is being read"),
        *_OVERLAPS,
    ),
    "bench simulate": (*_ORDERS, *_OVERLAPS),
    "bench tunnel": (*_ORDERS, *_OVERLAPS[:2]),
}
