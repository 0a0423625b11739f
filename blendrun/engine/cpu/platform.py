"""The out-of-tree SGLang platform: plain PyTorch on the CPU, in float32.

SGLang's in-tree CPU platform wants an AMX machine and its own kernel package. This one asks for neither: attention is
SGLang's `torch_native` backend with loops of our own behind it (`attention`), sampling its `pytorch` backend.
Everything above them (scheduler, radix cache, chunked prefill, overlap) is the same code that runs on a GPU.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform

from blendrun.engine import sglang_names
from blendrun.engine.cpu import older
from blendrun.engine.settings import CPU_PLATFORM


def activate() -> str | None:
    """Entry point of group `sglang.srt.platforms`. None, unless blendrun selected this platform by name."""
    if os.environ.get("SGLANG_PLATFORM") != CPU_PLATFORM:
        return None
    return f"{__name__}.CpuPlatform"


class CpuPlatform(SRTPlatform):  # type: ignore[misc]  # SGLang's base class is untyped here
    """Host memory as device memory. What SGLang takes for granted of no platform is not there: no graphs, no Triton."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"

    def init_backend(self) -> None:
        """Called once in each process that runs a model."""
        older.mend_grammars()

    def apply_server_args_defaults(self, server_args: Any) -> None:
        server_args.device = "cpu"

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_mha_kv_pool_cls(self) -> Any:
        """SGLang's own. It asks before 0.5.22 only."""
        return sglang_names.load(sglang_names.KV_POOL)

    def get_paged_allocator_cls(self) -> Any:
        return super().get_paged_allocator_cls() if sglang_names.reaches("0.5.22") else older.allocator

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return int(psutil.virtual_memory().total)

    def get_current_memory_usage(self, device: Any = None) -> float:
        memory = psutil.virtual_memory()
        return float(memory.total - memory.available)

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    def get_device(self, device_id: int = 0) -> Any:
        return torch.device("cpu")

    def set_device(self, device: Any) -> None:
        """One device; nothing to choose."""

    def get_device_name(self, device_id: int = 0) -> str:
        return "cpu"

    def get_device_uuid(self, device_id: int = 0) -> str:
        return "cpu"

    def get_device_capability(self, device_id: int = 0) -> None:
        return None

    def get_torch_distributed_backend_str(self) -> str:
        return "gloo"

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> Any:
        return torch.profiler.ProfilerActivity.CPU
