"""Raw rates of the device in plain torch: `python -m blendrun.calibrate.worker JSON`, one JSON line on stdout.

Runs in a process of its own, which imports torch so that the command does not, and gives all its memory back.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import psutil
import torch
from torch.nn.functional import scaled_dot_product_attention

from blendrun.calibrate.base import Rates
from blendrun.calibrate.rates import Request

_WARM_UPS = 2
_PAGE = 16


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
        attention, code = _decode_attention(request, device, kind)
    return Rates(
        flops=flops,
        copy_bandwidth=copied,
        attention_bandwidth=attention,
        memory=float(torch.cuda.get_device_properties(0).total_memory if gpu else psutil.virtual_memory().total),
        device=torch.cuda.get_device_name(0) if gpu else "cpu",
        attention=code,
    )


def _seconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of one call, after a warm-up."""
    taken = []
    for number in range(_WARM_UPS + repeats):
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        if number >= _WARM_UPS:
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _matrix_product(size: int, device: torch.device, kind: torch.dtype, repeats: int) -> float:
    """FLOP/s of a product of two square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return float(2 * size**3 / _seconds(lambda: left @ right, device, repeats))


def _copy(size: int, device: torch.device, repeats: int) -> float:
    """Byte/s of a copy of `size` bytes, read and written both counted."""
    source, target = (torch.ones(size, device=device, dtype=torch.uint8) for _ in range(2))
    return 2 * size / _seconds(lambda: target.copy_(source), device, repeats)


def _decode_attention(request: Request, device: torch.device, kind: torch.dtype) -> tuple[float, str]:
    """Byte/s of keys and values read by one layer's decode attention, and which code ran."""
    rows, context = (128, 2048) if device.type == "cuda" else (16, 1024)
    read = 2 * rows * context * request.kv_heads * request.head_dim * torch.finfo(kind).bits // 8
    if device.type == "cuda":
        try:
            run = _flashinfer(request, rows, context, kind)
            return read / _seconds(run, device, request.repeats), "flashinfer"
        except Exception as error:  # noqa: BLE001  # no flashinfer, no compiler for it: torch's own attention then
            sys.stderr.write(f"flashinfer did not run ({error!r}); torch's attention is measured\n")
    query = torch.randn(rows, request.heads, 1, request.head_dim, device=device, dtype=kind)
    keys, values = (
        torch.randn(rows, request.kv_heads, context, request.head_dim, device=device, dtype=kind) for _ in range(2)
    )
    # As the CPU runtime does: the query heads that share a key head are the rows of one product.
    query = query.view(rows, request.kv_heads, request.heads // request.kv_heads, request.head_dim)
    seconds = _seconds(lambda: scaled_dot_product_attention(query, keys, values), device, request.repeats)
    return read / seconds, "torch"


def _flashinfer(request: Request, rows: int, context: int, kind: torch.dtype) -> Callable[[], Any]:
    import flashinfer

    pages = rows * context // _PAGE
    whole = {"device": "cuda", "dtype": torch.int32}
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.zeros(256 << 20, dtype=torch.uint8, device="cuda"),
        "NHD",
        # What SGLang chooses too where several query heads share a key head.
        use_tensor_cores=request.heads // request.kv_heads >= 4,
    )
    wrapper.plan(
        torch.arange(0, pages + 1, context // _PAGE, **whole),
        torch.arange(pages, **whole),
        torch.full((rows,), _PAGE, **whole),
        request.heads,
        request.kv_heads,
        request.head_dim,
        _PAGE,
        q_data_type=kind,
        kv_data_type=kind,
    )
    cache = torch.randn(pages, 2, _PAGE, request.kv_heads, request.head_dim, device="cuda", dtype=kind)
    query = torch.randn(rows, request.heads, request.head_dim, device="cuda", dtype=kind)
    return lambda: wrapper.run(query, cache)


if __name__ == "__main__":
    main()
