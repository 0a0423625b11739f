"""Workloads by the paper's recipe: three kinds of requests, mixed to a wanted density and sharing (paper.md 2.1).

made = synthesise(Recipe.of("burstgpt", "openvid", "mmlu", rho=1.4, sharing=0.35, requests=400_000), model, peak)
write_workload(made, Path("mix-1.jsonl.zst"))
"""

from blendrun.synth.kinds import BLOCK, COMPUTE, MEMORY, SHARE, Kind
from blendrun.synth.recipe import Recipe, UnreachableError
from blendrun.synth.workload import Synthesis, synthesise
from blendrun.synth.write import write_workload

__all__ = [
    "BLOCK",
    "COMPUTE",
    "MEMORY",
    "SHARE",
    "Kind",
    "Recipe",
    "Synthesis",
    "UnreachableError",
    "synthesise",
    "write_workload",
]
