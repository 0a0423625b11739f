"""Flags of `vllm run-batch`, `vllm serve` and `sglang.launch_server`, and what each is here."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """option: of `blendrun run`, by parameter name. argument: of SGLang's engine. value: what the flag itself says,
    where it takes none. ignored: why it needs nothing here.
    """

    option: str | None = None
    argument: str | None = None
    takes: bool = True
    value: str = "true"
    ignored: str | None = None


def _argument(name: str) -> Flag:
    return Flag(argument=name)


def _switch(name: str, value: str = "true") -> Flag:
    return Flag(argument=name, takes=False, value=value)


def _needless(why: str, *, takes: bool = False) -> Flag:
    return Flag(takes=takes, ignored=why)


_ALWAYS = "that is always so"
_NO_SERVER = "no server is started"

VLLM: dict[str, Flag] = {
    "model": Flag(option="model"),
    "tensor-parallel-size": Flag(option="tp"),
    "tp": Flag(option="tp"),
    "data-parallel-size": Flag(option="replicas"),
    "dp": Flag(option="replicas"),
    "trust-remote-code": Flag(option="trust_remote_code", takes=False),
    "port": Flag(option="metrics_port"),
    "pipeline-parallel-size": _argument("pp_size"),
    "pp": _argument("pp_size"),
    "max-model-len": _argument("context_length"),
    "dtype": _argument("dtype"),
    "gpu-memory-utilization": _argument("mem_fraction_static"),
    "max-num-seqs": _argument("max_running_requests"),
    "max-num-batched-tokens": _argument("chunked_prefill_size"),
    "quantization": _argument("quantization"),
    "q": _argument("quantization"),
    "kv-cache-dtype": _argument("kv_cache_dtype"),
    "seed": _argument("random_seed"),
    "tokenizer": _argument("tokenizer_path"),
    "revision": _argument("revision"),
    "load-format": _argument("load_format"),
    "download-dir": _argument("download_dir"),
    "chat-template": _argument("chat_template"),
    "reasoning-parser": _argument("reasoning_parser"),
    "tool-call-parser": _argument("tool_call_parser"),
    "block-size": _argument("page_size"),
    "hf-overrides": _argument("json_model_override_args"),
    "cpu-offload-gb": _argument("cpu_offload_gb"),
    "max-loras": _argument("max_loras_per_batch"),
    "max-lora-rank": _argument("max_lora_rank"),
    "enforce-eager": _switch("disable_cuda_graph"),
    "enable-lora": _switch("enable_lora"),
    "no-enable-prefix-caching": _switch("disable_radix_cache"),
    "enable-expert-parallel": _needless("give --engine-arg ep_size=N where the engine needs it"),
    "enable-prefix-caching": _needless(_ALWAYS),
    "enable-chunked-prefill": _needless(_ALWAYS),
    "enable-auto-tool-choice": _needless(_ALWAYS),
    "enable-prompt-tokens-details": _needless(_ALWAYS),
    "disable-log-stats": _needless("see --quiet"),
    "disable-log-requests": _needless("no request is logged"),
    "no-enable-log-requests": _needless("no request is logged"),
    "max-log-len": _needless("no request is logged", takes=True),
    "output-tmp-dir": _needless("answers are kept beside the output until all are there", takes=True),
    "served-model-name": _needless("lines may name any model; answers name the one that answered", takes=True),
    "response-role": _needless("answers are the assistant's", takes=True),
    "swap-space": _needless("SGLang has none", takes=True),
    "host": _needless(_NO_SERVER, takes=True),
    "url": _needless(_NO_SERVER, takes=True),
    "enable-metrics": _needless("--port alone serves them"),
    "tokenizer-mode": _needless("SGLang finds it out", takes=True),
}


def hint(option: str) -> str | None:
    """What to write in place of an option that `blendrun run` does not have; None where nobody knows it.

    option: as typed, with its dashes. A flag of vLLM, or an argument of the SGLang that is installed.
    """
    name = option.lstrip("-").partition("=")[0].replace("_", "-")
    flag = VLLM.get(name)
    if flag is not None and flag.option is not None:
        return f"--{flag.option.replace('_', '-')}"
    if flag is not None and flag.argument is not None:
        return f"--engine-arg {flag.argument}={'VALUE' if flag.takes else flag.value}"
    if flag is not None:
        return f"nothing: {flag.ignored}"
    argument = name.replace("-", "_")
    return f"--engine-arg {argument}=VALUE" if argument in _engine_arguments() else None


def _engine_arguments() -> frozenset[str]:
    """Names of the arguments of SGLang's engine, read as text: importing it takes many seconds."""
    from importlib.util import find_spec
    from pathlib import Path

    package = find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        return frozenset()
    folder = Path(package.submodule_search_locations[0]) / "srt"
    # Newer versions have them in groups, a file each.
    sources = (folder / "server_args.py", *folder.glob("arg_groups/fields/*.py"))
    texts = (path.read_text(encoding="utf-8") for path in sources if path.exists())
    return frozenset(name for text in texts for name in re.findall(r"^    ([a-z][a-z0-9_]*): ", text, re.MULTILINE))
