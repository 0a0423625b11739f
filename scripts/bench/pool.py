"""The KV pool that a plan counts with beside the one that SGLang's own code works out, card by card. Needs no GPU.

python scripts/bench/pool.py [--json FILE]

SGLang's functions run as they are, told that a device of the card's memory is there: they choose the chunk, the sizes
of captured graphs and the share of the memory, and make tokens of what the weights leave. Two numbers are given to both
sides: what is free of a device before anything is loaded (`cost.reserve.free_bytes`, from start-up logs), and the
weights, for SGLang as transformers counts them.

What is called here is no part of blendrun, and stands where SGLang 0.5.23 has it (before 0.5.20 it is in one file), so
it is not among `engine.sglang_names`: another version is refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

from blendrun.cost.base import HardwareCard
from blendrun.cost.capacity import EngineLimits, kv_pool
from blendrun.cost.hardware import load_hardware, machine
from blendrun.cost.reserve import free_bytes
from blendrun.engine.sglang_names import LAST, installed
from blendrun.engine.sizes import engine_limits
from blendrun.errors import UsageError
from blendrun.models.card import ModelCard
from blendrun.models.cards import load_card

CARDS = ("h100-sxm", "a100-80g", "a100-40g", "h200", "l40s", "b200")
MODELS = (("llama-3-8b", 1), ("llama-3.2-1b", 1), ("llama-3.3-70b", 4))
# What a user, or a plan, may say beside that.
TOLD: tuple[dict[str, Any], ...] = (
    {"chunked_prefill_size": 2048},
    {"chunked_prefill_size": -1},
    {"cuda_graph_max_bs_decode": 1280},
    {"cuda_graph_bs_decode": [1, 8, 64]},
    {"max_running_requests": 640, "cuda_graph_max_bs_decode": 640},
    {"max_running_requests": 16},
    {"disable_decode_cuda_graph": True},
    {"mem_fraction_static": 0.75},
    {"max_total_tokens": 100_000},
)
_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """One engine. fraction, tokens: as SGLang has them, None where it would not start; planned: tokens by blendrun."""

    card: str
    model: str
    tensor: int
    told: str
    fraction: float | None
    tokens: int | None
    planned: int | None

    @property
    def error(self) -> float:
        return 0.0 if not self.tokens or not self.planned else self.planned / self.tokens - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    out = parser.parse_args().json
    if installed() != LAST:
        raise SystemExit(f"this calls functions of SGLang {LAST} by name, and {installed()} is installed")
    print("| card | model | GPUs | told | share | SGLang tokens | planned | error |\n|---|---|---|---|---|---|---|---|")
    rows = []
    with TemporaryDirectory(prefix="blendrun-pool-") as folder:
        for row in compare(Path(folder)):
            rows.append(row)
            where = f"| {row.card} | {row.model} | {row.tensor} | {row.told} |"
            if row.tokens is None or row.planned is None:
                print(f"{where} | {row.tokens or 'does not fit'} | {row.planned or 'does not fit'} | |", flush=True)
                continue
            print(f"{where} {row.fraction:.3f} | {row.tokens:,} | {row.planned:,} | {row.error:+.2%} |", flush=True)
    if out:
        out.write_text(json.dumps([{name: getattr(row, name) for name in Row.__slots__} for row in rows], indent=1))


def compare(folder: Path) -> Iterator[Row]:
    """folder: for configs of the models."""
    for alias, tensor in MODELS:
        model = load_card(alias)
        path = folder / alias
        path.mkdir()
        (path / "config.json").write_text(json.dumps(_config(model)))
        weights = _weights(path)
        for name in CARDS:
            yield _compared(load_hardware(name), model, path, weights, {"tp_size": tensor})
        for told in TOLD if alias == MODELS[0][0] else ():
            yield _compared(load_hardware(CARDS[0]), model, path, weights, told)


def _compared(card: HardwareCard, model: ModelCard, path: Path, weights: int, told: dict[str, Any]) -> Row:
    tensor = told.get("tp_size", 1)
    free = free_bytes(card, tensor) / _GIB
    try:
        fraction, tokens = _of_sglang(card.memory.value / _MIB, free, weights / tensor / _GIB, path, told)
    except ValueError:
        # "Loaded weights leave no GPU memory for the KV cache".
        fraction, tokens = None, None
    said = ", ".join(f"{name}={value}" for name, value in told.items() if name != "tp_size")
    planned = _planned(card, model, engine_limits("gpu", told))
    return Row(card.name, model.alias, tensor, said, fraction, tokens, planned)


def _planned(card: HardwareCard, model: ModelCard, limits: EngineLimits) -> int | None:
    try:
        return kv_pool(model, machine(card, limits.devices or 1), limits).tokens
    except UsageError:
        return None


def _of_sglang(memory: float, free: float, weights: float, path: Path, told: dict[str, Any]) -> tuple[float, int]:
    """Share and tokens. memory: MiB of the device. free: GiB before weights are loaded. weights: GiB of a rank.

    Raises ValueError where the weights leave nothing.
    """
    from sglang.srt.arg_groups import cuda_graph_hook, memory_hook
    from sglang.srt.arg_groups.overrides import model_config_of, resolving_view
    from sglang.srt.mem_cache import kv_cache_configurator
    from sglang.srt.runtime_context import create_context, get_parallel, use_context
    from sglang.srt.server_args import ServerArgs

    with (
        mock.patch("sglang.srt.utils.is_cuda", lambda: True),
        mock.patch.object(memory_hook, "get_device_memory_capacity", lambda device: memory),
        mock.patch.object(kv_cache_configurator, "get_available_gpu_memory", lambda *_, **__: free - weights),
    ):
        arguments = ServerArgs(model_path=str(path), device="cuda", page_size=1, **told)
        cuda_graph_hook.handle_cuda_graph_config(arguments)
        memory_hook.handle_gpu_memory_settings(arguments)
        # All others of SGLang's steps would ask the device.
        arguments._resolution_finished = True
        with use_context(create_context(arguments, role="scheduler")):
            get_parallel().override_permanently(world_group=SimpleNamespace(cpu_group=None))
            sizer = _sizer(arguments, model_config_of(arguments))
            tokens = sizer.config_from_budget(sizer._profile_available_bytes(free)).max_total_num_tokens
        return float(resolving_view(arguments).mem_fraction_static), int(tokens)


def _sizer(arguments: Any, config: Any) -> Any:
    """SGLang's sizing of the pool without its constructor, which wants a loaded model: what the sizing reads."""
    import torch
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.model_executor.model_runner_components.layer_setup import ModelLayerInfo
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    layers = config.num_hidden_layers
    told = {
        "device": "cuda",
        "gpu_id": 0,
        "model_config": config,
        "server_args": arguments,
        "layer_info": ModelLayerInfo(start_layer=0, end_layer=layers, num_effective_layers=layers),
        "kv_cache_dtype": torch.bfloat16,
        "kv_cache_dtype_str": "auto",
        "spec_algorithm": SpeculativeAlgorithm.NONE,
        "pp_size": 1,
        "attn_dp_size": 1,
        "page_size": 1,
        "kv_shard_size": 1,
    }
    no = ("is_draft_worker", "is_hybrid_swa", "post_capture_kv_active", "use_mla_backend")
    none = ("mambaish_config", "kv_shard_rank", "kv_shard_spec")
    sizer = object.__new__(KVCacheConfigurator)
    for name, value in (told | dict.fromkeys(no, False) | dict.fromkeys(none)).items():
        setattr(sizer, name, value)
    return sizer


def _config(model: ModelCard) -> dict[str, Any]:
    """Of a plain dense model, as its config.json has it."""
    return {
        "architectures": [model.architecture],
        "model_type": "qwen2" if model.architecture.startswith("Qwen2") else "llama",
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.context_length,
        "tie_word_embeddings": model.tied_embeddings,
        "torch_dtype": "bfloat16",
    }


def _weights(path: Path) -> int:
    """Bytes in 16 bits, norms and all, of a model that is built without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.bfloat16)
    model.tie_weights()
    return sum(each.numel() * each.element_size() for each in model.parameters())


if __name__ == "__main__":
    main()
