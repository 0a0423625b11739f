"""What a token of context costs a decoding row on the CPU runtime, and a prefill its attention: torch's code and ours.

    python scripts/bench/attention.py --rows 1,16,64 --contexts 128,1024,4096

Shapes are SmolLM2-135M's unless said otherwise. Microseconds are those of all layers. Where nothing is shared rows lie
apart in the pool, else they begin with the same slots. Best of some calls, torch's and ours in turn; nothing else
should run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from blendrun.engine.cpu.attention import decode_together, extend_new_rows


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    print("| rows | context | shared | torch, us a token | loops, us a token | times |")
    print("|---|---|---|---|---|---|")
    with torch.inference_mode():
        for context in asked.contexts:
            for rows in asked.rows:
                for shared in asked.shared if rows > 1 else (0.0,):
                    torchs, ours = decode(asked, rows, context, shared)
                    each = 1e6 * asked.layers / (rows * context)
                    print(
                        f"| {rows} | {context:,} | {shared:.0%} | {each * torchs:.2f} | {each * ours:.2f} "
                        f"| {torchs / ours:.1f} |"
                    )
        print("\n| new tokens | cached | torch, ms | loops, ms | times |")
        print("|---|---|---|---|---|")
        for new, cached in asked.prefills:
            torchs, ours = (1e3 * asked.layers * each for each in prefill(asked, new, cached))
            print(f"| {new:,} | {cached:,} | {torchs:.1f} | {ours:.1f} | {torchs / ours:.1f} |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=numbers, default=[1, 16, 64])
    parser.add_argument("--contexts", type=numbers, default=[128, 512, 1024, 4096])
    parser.add_argument("--shared", type=lambda text: [float(each) for each in text.split(",")], default=[0.0, 0.75])
    parser.add_argument("--prefills", type=pairs, default=[(700, 0), (300, 400), (100, 900)], help="NEW:CACHED,...")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    for name, usual in (("layers", 30), ("heads", 9), ("kv-heads", 3), ("head-size", 64)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def pairs(text: str) -> list[tuple[int, int]]:
    return [(int(new), int(cached)) for new, _, cached in (each.partition(":") for each in text.split(","))]


def decode(asked: argparse.Namespace, rows: int, context: int, shared: float) -> tuple[float, float]:
    """Seconds of one layer: torch's and ours."""
    common = int(context * shared)
    own = context - common
    starts = common + own * torch.arange(rows).unsqueeze(1)
    table = torch.cat((torch.arange(common).expand(rows, -1), starts + torch.arange(own)), dim=1)
    caches = pool(asked, common + own * rows)
    query = torch.randn(rows, asked.heads, asked.head_size)
    return both(asked, decode_together, query, caches, table, torch.full((rows,), context))


def prefill(asked: argparse.Namespace, new: int, cached: int) -> tuple[float, float]:
    """Seconds of one layer: torch's and ours."""
    length = new + cached
    query = torch.randn(new, asked.heads, asked.head_size)
    lengths = (torch.tensor([length]), torch.tensor([cached]), torch.tensor([new]))
    return both(
        asked, extend_new_rows, query, pool(asked, length), torch.arange(length).unsqueeze(0), *lengths,
        enable_gqa=True, causal=True,
    )  # fmt: skip


def pool(asked: argparse.Namespace, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = (torch.randn(slots, asked.kv_heads, asked.head_size) for _ in range(2))
    return keys, values


class Backend:
    """SGLang's would keep a step's plan for all layers."""

    blendrun_step = None


def both(
    asked: argparse.Namespace,
    hook: Callable[..., Any],
    query: torch.Tensor,
    caches: tuple[torch.Tensor, torch.Tensor],
    table: torch.Tensor,
    *lengths: torch.Tensor,
    **named: bool,
) -> tuple[float, float]:
    requests, backend, best = torch.arange(table.shape[0]), Backend(), [float("inf")] * 2
    # The loops take the pool's own table of 32 bits; one of 64 leaves the work to torch.
    tables = table, table.to(torch.int32)
    for _ in range(asked.repeats + 1):
        for place, each in enumerate(tables):
            begun = time.perf_counter()
            hook(stock, backend, query, torch.empty_like(query), *caches, each, requests, *lengths, **named)
            best[place] = min(best[place], time.perf_counter() - begun)
    return best[0], best[1]


def stock(*_: Any, **__: Any) -> None:
    raise AssertionError("SGLang's own code is not measured here")


if __name__ == "__main__":
    main()
