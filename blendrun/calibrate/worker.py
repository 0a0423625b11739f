"""Raw rates of the device: `python -m blendrun.calibrate.worker JSON`, one JSON line on stdout.

Runs in a process of its own, which imports torch so that the command does not, and gives all its memory back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import psutil
import torch

from blendrun.calibrate.base import Rates
from blendrun.calibrate.kernels import KERNELS, LOOPS, STAND_INS, Batch, plain, takes_loops
from blendrun.calibrate.rates import PLAIN, Request
from blendrun.calibrate.timing import by_device, by_host
from blendrun.engine.cpu import products

# Bytes of keys and values that are more than the caches of a GPU hold, several times over (B200: 126 MiB).
_LEAST_READ = 512 << 20


def main() -> None:
    request = msgspec.json.decode(sys.argv[1], type=Request)
    sys.stdout.write(msgspec.json.encode(measure(request)).decode() + "\n")


def measure(request: Request) -> Rates:
    """All rates of one device."""
    gpu = request.platform == "gpu"
    device = torch.device("cuda" if gpu else "cpu")
    kind = torch.bfloat16 if gpu else torch.float32
    with torch.inference_mode():
        flops = _matrix_product(8192 if gpu else 2048, device, kind, request.repeats)
        copied = _copy((2 << 30) if gpu else (256 << 20), device, request.repeats)
        attention, code, why = decode_attention(request, device, kind)
    return Rates(
        flops=flops,
        copy_bandwidth=copied,
        attention_bandwidth=attention,
        memory=float(torch.cuda.get_device_properties(0).total_memory if gpu else psutil.virtual_memory().total),
        device=torch.cuda.get_device_name(0) if gpu else "cpu",
        attention=code,
        stand_in=why,
    )


def _seconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of one call."""
    if device.type == "cuda":
        return by_device(run, repeats, partial(torch.cuda.Event, enable_timing=True))
    return by_host(run, repeats)


def _matrix_product(size: int, device: torch.device, kind: torch.dtype, repeats: int) -> float:
    """FLOP/s of a product of two square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    multiply = partial(torch.matmul, left, right)
    if device.type == "cpu" and products.works():
        # As the CPU runtime does it.
        multiply = partial(products.product, left, products.packed(right), None)
    return float(2 * size**3 / _seconds(multiply, device, repeats))


def _copy(size: int, device: torch.device, repeats: int) -> float:
    """Byte/s of a copy of `size` bytes, read and written both counted."""
    source, target = (torch.ones(size, device=device, dtype=torch.uint8) for _ in range(2))
    return 2 * size / _seconds(lambda: target.copy_(source), device, repeats)


def decode_attention(request: Request, device: torch.device, kind: torch.dtype) -> tuple[float, str, str]:
    """Byte/s of keys and values read by one layer's decode attention, which code ran on what, and why it is not the
    engine's own; empty where it is."""
    batch = _batch(request, device, kind)

    def seconds(name: str) -> float:
        made = plain(batch) if name == PLAIN else KERNELS[name](batch)
        return _seconds(made, device, request.repeats)

    on_cpu = LOOPS if device.type == "cpu" and takes_loops(batch) else PLAIN
    wanted = request.attention if device.type == "cuda" else on_cpu
    taken, name, why = first_that_runs(wanted, seconds)
    return batch.read / taken, f"{name}, {batch.rows} x {batch.context} tokens", why


def first_that_runs(wanted: str | None, seconds: Callable[[str], float]) -> tuple[float, str, str]:
    """Seconds by the kernel `wanted`, or by the first stand-in that runs; its name; why it stands in, or nothing.

    Raises what torch's own attention raises, which is the last one.
    """
    why = ""
    if wanted != PLAIN and wanted not in KERNELS:
        why = f"the engine's {wanted or 'attention'} is not one that is measured here"
    tried = () if wanted == PLAIN else (wanted or "", *STAND_INS)
    for name in dict.fromkeys(each for each in tried if each in KERNELS):
        try:
            return seconds(name), name, why
        except Exception as error:  # noqa: BLE001  # not installed, not for this device, no compiler for it
            why = why or f"the engine's {wanted} did not run here ({_first_line(error)})"
            sys.stderr.write(f"{name} did not run: {error!r}\n")
    return seconds(PLAIN), PLAIN, why


def _batch(request: Request, device: torch.device, kind: torch.dtype) -> Batch:
    rows, context = (128, 2048) if device.type == "cuda" else (16, 1024)
    batch = Batch(rows, context, request.heads, request.kv_heads, request.head_dim, request.page, device, kind)
    while device.type == "cuda" and batch.read < _LEAST_READ:
        batch = replace(batch, rows=2 * batch.rows)
    return batch


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


if __name__ == "__main__":
    main()
