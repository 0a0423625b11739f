"""Flags of `vllm run-batch`, `vllm serve` and `sglang.launch_server`, and what each is here."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """option: of `blendrun run`, by parameter name. argument: of SGLang's engine. value: what the flag itself says,
    where it takes none. ignored: why it needs nothing here. refused: why it cannot be kept. several: it takes all words
    up to the next flag.
    """

    option: str | None = None
    argument: str | None = None
    takes: bool = True
    value: str = "true"
    ignored: str | None = None
    refused: str | None = None
    several: bool = False


def _argument(name: str) -> Flag:
    return Flag(argument=name)


def _switch(name: str, value: str = "true") -> Flag:
    return Flag(argument=name, takes=False, value=value)


def _needless(why: str, *, takes: bool = False) -> Flag:
    return Flag(takes=takes, ignored=why)


def _refused(why: str, *, takes: bool = True) -> Flag:
    return Flag(takes=takes, refused=why)


_ALWAYS = "that is always so"
_NO_SERVER = "no server is started"
_PLANNED = "the order of work is the plan's"
_NOT_SGLANG = "SGLang's engine has nothing of the kind"
_LINES = "what is asked of the model stands in the lines"
_SPECULATES = "give SGLang's: --engine-arg speculative_algorithm=..., speculative_draft_model_path=..."

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
    "served-model-name": Flag(ignored="lines may name any model; answers name the one that answered", several=True),
    "response-role": _needless("answers are the assistant's", takes=True),
    "swap-space": _needless("SGLang has none", takes=True),
    "host": _needless(_NO_SERVER, takes=True),
    "url": _needless(_NO_SERVER, takes=True),
    "enable-metrics": _needless("--port alone serves them"),
    "tokenizer-mode": _needless("SGLang finds it out", takes=True),
    "allowed-local-media-path": Flag(option="allow_media_files"),
    "limit-mm-per-prompt": _argument("limit_mm_data_per_request"),
    "max-cpu-loras": _argument("max_loaded_loras"),
    "model-impl": _argument("model_impl"),
    "model-loader-extra-config": _argument("model_loader_extra_config"),
    "disable-custom-all-reduce": _switch("disable_custom_all_reduce"),
    "no-enable-chunked-prefill": _switch("chunked_prefill_size", "-1"),
    "enable-force-include-usage": _needless(_ALWAYS),
    "async-scheduling": _needless("SGLang's scheduler overlaps where that helps"),
    "disable-async-output-proc": _needless(_NO_SERVER),
    "enable-log-requests": _needless("no request is logged"),
    "enable-sleep-mode": _needless(_NO_SERVER),
    "api-server-count": _needless(_NO_SERVER, takes=True),
    "uvicorn-log-level": _needless(_NO_SERVER, takes=True),
    "stream-interval": _needless("nothing is streamed into a file", takes=True),
    "distributed-executor-backend": _needless("an engine starts its processes itself; --ray is for nodes", takes=True),
    "data-parallel-backend": _needless("replicas are processes here; --ray is for nodes", takes=True),
    "max-parallel-loading-workers": _needless("SGLang finds it out", takes=True),
    "tokenizer-pool-size": _needless("SGLang finds it out", takes=True),
    "safetensors-load-strategy": _needless("SGLang finds it out", takes=True),
    "ignore-patterns": _needless("weights, configuration and tokenizer files are all that is taken", takes=True),
    "task": _needless(_LINES, takes=True),
    "runner": _needless(_LINES, takes=True),
    "convert": _needless(_LINES, takes=True),
    "max-logprobs": _needless("a line may ask for 256", takes=True),
    "chat-template-content-format": _needless("the template says which it reads", takes=True),
    "guided-decoding-backend": _needless("xgrammar, or --engine-arg grammar_backend=NAME", takes=True),
    "scheduling-policy": _needless(_PLANNED, takes=True),
    "preemption-mode": _needless(_PLANNED, takes=True),
    "num-scheduler-steps": _needless(_PLANNED, takes=True),
    "scheduler-delay-factor": _needless(_PLANNED, takes=True),
    "max-num-partial-prefills": _needless(_PLANNED, takes=True),
    "long-prefill-token-threshold": _needless(_PLANNED, takes=True),
    "multi-step-stream-outputs": _needless(_PLANNED),
    "use-v2-block-manager": _needless(_ALWAYS),
    "disable-cascade-attn": _needless("it changes no answer"),
    "max-seq-len-to-capture": _needless("graphs are for rows: --engine-arg cuda_graph_max_bs_decode=N", takes=True),
    "compilation-config": _refused("--engine-arg enable_torch_compile=true is what SGLang has"),
    "O": _refused("--engine-arg enable_torch_compile=true is what SGLang has"),
    "attention-backend": _refused("SGLang's names differ: --engine-arg attention_backend=NAME"),
    "num-gpu-blocks-override": _refused("give their tokens: --engine-arg max_total_tokens=N"),
    "kv-cache-memory-bytes": _refused("give their tokens: --engine-arg max_total_tokens=N"),
    "rope-scaling": _refused("write it into --hf-overrides"),
    "rope-theta": _refused("write it into --hf-overrides"),
    "speculative-config": _refused(_SPECULATES),
    "speculative-model": _refused(_SPECULATES),
    "num-speculative-tokens": _refused(_SPECULATES),
    "override-generation-config": _refused("write the fields into the lines"),
    "generation-config": _refused("SGLang reads the model's own; what differs is a line's to say"),
    "structured-outputs-config": _refused("--engine-arg grammar_backend=NAME is what SGLang has"),
    "kv-transfer-config": _refused(_NOT_SGLANG),
    "mm-processor-kwargs": _refused("a line may have `mm_processor_kwargs`"),
    "logits-processors": _refused("they are code, and lines bring none"),
    "tokenizer-revision": _refused("--revision is for all files"),
    "code-revision": _refused("--revision is for all files"),
    "hf-token": _refused("put it into the environment, as HF_TOKEN: everybody here can read a command line"),
    "otlp-traces-endpoint": _refused("--trace FILE of `blendrun run` has phases and steps"),
    "enable-lora-bias": _refused(_NOT_SGLANG, takes=False),
    "fully-sharded-loras": _refused(_NOT_SGLANG, takes=False),
    "disable-sliding-window": _refused(_NOT_SGLANG, takes=False),
    "calculate-kv-scales": _refused(_NOT_SGLANG, takes=False),
    "skip-tokenizer-init": _refused("answers are texts", takes=False),
}

# Flags for files, which vLLM has in place of an argument.
_FILES = {
    "i": "the argument: blendrun run FILE",
    "input-file": "the argument: blendrun run FILE",
    "output-file": "-o FILE",
}


def hint(option: str) -> str | None:
    """What to write in place of an option that `blendrun run` does not have; None where nobody knows it.

    option: as typed, with its dashes. A flag of vLLM, or an argument of the SGLang that is installed.
    """
    name = option.lstrip("-").partition("=")[0].replace("_", "-")
    if name in _FILES:
        return _FILES[name]
    flag = VLLM.get(name)
    if flag is not None and flag.option is not None:
        return f"--{flag.option.replace('_', '-')}"
    if flag is not None and flag.argument is not None:
        return f"--engine-arg {flag.argument}={'VALUE' if flag.takes else flag.value}"
    if flag is not None:
        return f"not to be had: {flag.refused}" if flag.refused is not None else f"nothing: {flag.ignored}"
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
