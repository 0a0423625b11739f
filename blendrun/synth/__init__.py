"""Workloads by the paper's recipe: three kinds of requests, mixed to a wanted density and sharing.

The recipe: docs/paper.md#workloads.

made = synthesise(Recipe.of("burstgpt", "openvid", "mmlu", rho=1.4, sharing=0.35, requests=400_000), model, peak)
write_workload(made, Path("mix-1.jsonl.zst"))
"""
