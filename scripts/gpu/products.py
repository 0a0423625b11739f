"""What a GPU does at best: one JSON line of TFLOP/s and TB/s. python scripts/gpu/products.py [--small]

Products of bfloat16 matrices: one large, then of 256, 512 and 2,048 tokens with a layer's weights of Llama-3-8B; a
copy, read and written both counted. Timed by the device's clock.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from blendrun.calibrate.timing import by_device, by_host


def main() -> None:
    small = "--small" in sys.argv
    device = torch.device("cpu" if small else "cuda")
    kind = torch.float32 if small else torch.bfloat16
    scale = 16 if small else 1
    found: dict[str, Any] = {"device": "cpu" if small else torch.cuda.get_device_name(0), "torch": torch.__version__}

    def seconds(run: Callable[[], Any]) -> float:
        if small:
            return float(by_host(run, 3))
        return float(by_device(run, 5, partial(torch.cuda.Event, enable_timing=True)))

    def tflops(rows: int, inner: int, columns: int) -> float:
        left, right = (torch.randn(*shape, device=device, dtype=kind) for shape in ((rows, inner), (inner, columns)))
        return round(2 * rows * inner * columns / seconds(lambda: left @ right) / 1e12, 4)

    with torch.inference_mode():
        side = 8192 // scale
        found["tflops 8192^3"] = tflops(side, side, side)
        for tokens in (256, 512, 2048):
            found[f"tflops {tokens} tokens"] = tflops(tokens, 4096 // scale, 28672 // scale)
        source = torch.ones((2 << 30) // scale**2, device=device, dtype=torch.uint8)
        target = torch.empty_like(source)
        found["tb/s copy"] = round(2 * len(source) / seconds(lambda: target.copy_(source)) / 1e12, 4)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
