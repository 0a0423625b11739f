"""What runs beside what in SGLang: the arguments of each overlap mode, and where a mode is refused.

exclusive: a step is prefill or decode, SGLang's default. mixed: a prefill chunk and the decode rows share one pass.
pdmux: prefill and decode at the same time on two parts of a GPU (SGLang calls it experimental), which SGLang divides by
itself or as the engine argument `pdmux_config_path` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.engine.base import AdaptiveStep, CrossoverStep, OverlapMode, Platform, StepBudget

# Speculative algorithms that SGLang mixes with prefill chunks (speculative/spec_info.py, supports_mixed_chunk).
_MIXED_SPECULATION = frozenset(("EAGLE", "EAGLE3", "DFLASH", "DSPARK"))
# Compute capabilities whose green contexts SGLang knows how to split (multiplex/pdmux_context.py).
_PDMUX_CAPABILITIES = range(6, 10)
# Models that run a prefill some layers at a time (`forward_split_prefill`).
_PDMUX_ARCHITECTURES = frozenset(
    (
        *("ApertusForCausalLM", "Exaone4ForCausalLM", "ExaoneMoEForCausalLM", "Gemma2ForCausalLM"),
        *("Gemma3ForCausalLM", "GemmaForCausalLM", "Glm4ForCausalLM", "Llama4ForCausalLM", "LlamaForCausalLM"),
        *("MellumForCausalLM", "NanbeigeForCausalLM", "QWenLMHeadModel", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM"),
        *("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SarvamMLAForCausalLM", "SarvamMoEForCausalLM"),
        "Spark2_5ForCausalLM",
    )
)
# What an engine decodes at once where neither the user nor a plan said: SGLang's largest captured batch on cards with
# room for it.
_MOST_ROWS = 512
# Pages of every attention backend divide it.
_CHUNK_STEP = 64
_OFF = (None, False, "", 0)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a mode depends on beside the engine's arguments; None where it is not known.

    any_logprobs: a request asks for log probabilities. any_adapter: a request names a LoRA adapter.
    compute_capability: of the GPU, (major, minor). architecture: of the model, as its config.json names it.
    budget: of the scheduler plug-in; it sizes the chunk of mixed steps.
    """

    any_logprobs: bool = False
    any_adapter: bool = False
    compute_capability: tuple[int, int] | None = None
    architecture: str | None = None
    budget: StepBudget | None = None


@dataclass(frozen=True, slots=True)
class OverlapRefusal:
    """A mode that cannot be had. sentence: why, for a person."""

    sentence: str


def overlap_arguments(
    mode: OverlapMode, platform: Platform, server_args: dict[str, Any], facts: JobFacts
) -> dict[str, Any] | OverlapRefusal:
    """SGLang arguments that turn `mode` on, or why it is refused.

    server_args: the user's own and what a plan needs (`engine.sizes`), which win.
    """
    if mode == "mixed":
        return _mixed(server_args, facts)
    if mode == "pdmux":
        return _pdmux(platform, server_args, facts)
    return {}


def _mixed(server_args: dict[str, Any], facts: JobFacts) -> dict[str, Any] | OverlapRefusal:
    chunk, algorithm = server_args.get("chunked_prefill_size"), server_args.get("speculative_algorithm")
    refusals = {
        "requests ask for logprobs, and SGLang mixes no step that returns them": facts.any_logprobs,
        "enable_mixed_chunk is turned off by an engine argument": server_args.get("enable_mixed_chunk") is False,
        f"chunked_prefill_size={chunk} turns chunks off": isinstance(chunk, int) and chunk <= 0,
        f"SGLang does not mix steps of speculative_algorithm={algorithm}": algorithm not in _OFF
        and str(algorithm).upper() not in _MIXED_SPECULATION,
        "SGLang does not mix steps under enable_hisparse": server_args.get("enable_hisparse") is True,
    }
    if reason := _first(refusals):
        return OverlapRefusal(f"overlap mixed is not possible: {reason}")
    arguments: dict[str, Any] = {"enable_mixed_chunk": True}
    if facts.budget is not None:
        arguments["chunked_prefill_size"] = _chunk(facts.budget, server_args.get("max_running_requests"))
    return arguments


def _chunk(budget: StepBudget, rows: int | None) -> int:
    """Tokens of the largest step that a budget allows: SGLang counts decode rows against its chunk too."""
    if isinstance(budget, AdaptiveStep):
        tokens = max(budget.floor, budget.most + (_MOST_ROWS if rows is None else rows))
    elif isinstance(budget, CrossoverStep):
        tokens = max(budget.tokens, budget.alone)
    else:
        tokens = budget.tokens
    return -(-tokens // _CHUNK_STEP) * _CHUNK_STEP


def _pdmux(platform: Platform, server_args: dict[str, Any], facts: JobFacts) -> dict[str, Any] | OverlapRefusal:
    capability, architecture = facts.compute_capability, facts.architecture
    stages, chunk = server_args.get("pp_size", 1), server_args.get("chunked_prefill_size", -1)
    refusals = {
        "it splits the processors of a GPU, and this engine runs on the CPU": platform != "gpu",
        f"the GPU's compute capability {capability} is none of 6 to 9": capability is not None
        and capability[0] not in _PDMUX_CAPABILITIES,
        f"SGLang cannot run {architecture} a few layers at a time": architecture is not None
        and architecture not in _PDMUX_ARCHITECTURES,
        f"it wants pp_size=1, not {stages}": stages != 1,
        f"it wants chunked_prefill_size=-1, not {chunk}": chunk != -1,
        "it wants disable_overlap_schedule=true": server_args.get("disable_overlap_schedule") is False,
        "it does not go with enable_mixed_chunk": server_args.get("enable_mixed_chunk") is True,
        "it does not go with disaggregation": server_args.get("disaggregation_mode", "null") != "null",
        "it does not go with speculative decoding": server_args.get("speculative_algorithm") not in _OFF,
        "it does not go with LoRA adapters": facts.any_adapter
        or server_args.get("enable_lora", bool(server_args.get("lora_paths"))) is True,
    }
    if reason := _first(refusals):
        return OverlapRefusal(f"overlap pdmux is not possible: {reason}")
    return {"enable_pdmux": True, "chunked_prefill_size": -1, "disable_overlap_schedule": True}


def _first(refusals: dict[str, bool]) -> str | None:
    return next((reason for reason, holds in refusals.items() if holds), None)
