"""From blendrun's engine settings to SGLang's: environment of the engine process and `ServerArgs`.

Every default that differs from SGLang's own stands here once, with its reason. What the user passes with
`--engine-arg` wins over all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import orjson

from blendrun.engine.base import EngineSettings, Platform
from blendrun.engine.cascade.register import CASCADE_VARIABLE
from blendrun.engine.overlap import JobFacts, OverlapRefusal, overlap_arguments
from blendrun.engine.scheduler.plugin import SETTINGS_VARIABLE
from blendrun.engine.sglang_names import TREE, TREE_VARIABLE, has, nan_check, since
from blendrun.engine.shared_reads import CASCADE, shared_reads
from blendrun.engine.sizes import CPU_KV_TOKENS, CPU_MAX_RUNNING
from blendrun.errors import UsageError
from blendrun.models.resolve import cache_folder

RUNTIME_PACKAGES = ("sglang", "torch", "transformers")
# The platform's entry point name. Its plug-ins act only where SGLang was told this name.
CPU_PLATFORM = "blendrun_cpu"
_CPU_PLUGINS = "blendrun_cpu,blendrun_cpu_attention,blendrun_scheduler,blendrun_seeds"
# What SGLang calls the backend of adapters that needs neither Triton nor a GPU.
CPU_LORA = "torch_native"
# One forward pass may take minutes on a slow CPU; SGLang's watchdog would take that for a hang after 300 s.
_CPU_WATCHDOG_S = 3600


# SGLang arguments that set how much runs at once or where, not what is answered (up to the last bits, which any
# other batch composition changes too). All others make answers of two runs different work.
_CAPACITY_ARGS = frozenset(
    (
        "base_gpu_id",
        "chunked_prefill_size",
        "cuda_graph_backend_decode",
        "cuda_graph_backend_prefill",
        "cuda_graph_bs_decode",
        "cuda_graph_bs_prefill",
        "cuda_graph_config",
        "cuda_graph_max_bs_decode",
        "cuda_graph_max_bs_prefill",
        "cuda_graph_max_seq_len_prefill",
        "cuda_graph_prefill_max_context",
        "decode_log_interval",
        "device",
        "disable_cuda_graph",
        "disable_cuda_graph_padding",
        "disable_decode_cuda_graph",
        "disable_overlap_schedule",
        "disable_prefill_cuda_graph",
        "disable_priority_preemption",
        "disable_radix_cache",
        "dp_size",
        "enable_mixed_chunk",
        "enable_pdmux",
        "enable_priority_scheduling",
        "ep_size",
        "gpu_id_step",
        "load_balance_method",
        "log_level",
        "max_prefill_tokens",
        "max_running_requests",
        "max_total_tokens",
        "mem_fraction_static",
        "nnodes",
        "node_rank",
        "page_size",
        "pdmux_config_path",
        "pp_size",
        "prefill_decode_interval",
        "prefill_max_requests",
        "radix_eviction_policy",
        "retraction_policy",
        "schedule_conservativeness",
        "schedule_low_priority_values_first",
        "schedule_policy",
        "sleep_on_idle",
        "tp_size",
        "watchdog_timeout",
    )
)
# What it is where nothing is said.
_ALONE = [("tp_size", 1), ("pp_size", 1), ("ep_size", 1)]
# SGLang arguments that leave the time of a step with so many tokens as it is.
_NO_STEP_ARGS = frozenset(
    (
        "base_gpu_id",
        "chat_template",
        "chunked_prefill_size",
        "context_length",
        "cuda_graph_max_bs_decode",
        "decode_log_interval",
        "device",
        "disable_radix_cache",
        "enable_mixed_chunk",
        "enable_priority_scheduling",
        "gpu_id_step",
        "log_level",
        "max_prefill_tokens",
        "max_running_requests",
        "max_total_tokens",
        "mem_fraction_static",
        "prefill_max_requests",
        "radix_eviction_policy",
        "random_seed",
        "reasoning_parser",
        "retraction_policy",
        "schedule_conservativeness",
        "schedule_low_priority_values_first",
        "schedule_policy",
        "served_model_name",
        "sleep_on_idle",
        "tool_call_parser",
        "trust_remote_code",
        "watchdog_timeout",
    )
)


def answer_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the user's engine arguments that can change an answer."""
    return {name: value for name, value in sorted(arguments.items()) if name not in _CAPACITY_ARGS}


def step_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of an engine's arguments that can change how long a step takes: all but those that say how much runs at
    once, in which order, or what is made of the answers."""
    changed = {name: value for name, value in arguments.items() if (name, value) not in _ALONE}
    return {name: value for name, value in sorted(changed.items()) if name not in _NO_STEP_ARGS}


def needs_weights(arguments: dict[str, Any]) -> bool:
    """Whether an engine with these arguments reads the model's weights: with `load_format=dummy` it makes its own."""
    return arguments.get("load_format") != "dummy"


def detect_platform() -> Platform:
    """Return "gpu" where an accelerator's device node is visible, else "cpu". Looks at files only, imports no torch.

    An AMD node counts for a ROCm build of torch only: desktop processors with built-in graphics have one too.
    """
    if any(os.environ.get(name) in ("", "-1") for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")):
        return "cpu"
    nodes = ["/dev/nvidia0", "/dev/nvidiactl"]
    with contextlib.suppress(PackageNotFoundError):
        nodes += ["/dev/kfd"] if "rocm" in version("torch") else []
    return "gpu" if any(Path(node).exists() for node in nodes) else "cpu"


def visible_gpus() -> int:
    """Devices that an engine may use: those that the environment names, or all device nodes. Imports no torch."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if os.environ.get(name) is not None:
            return len([device for device in os.environ[name].split(",") if device.strip() not in ("", "-1")])
    return len([node for node in Path("/dev").glob("nvidia*") if node.name.removeprefix("nvidia").isdigit()]) or 1


def devices_of(arguments: dict[str, Any]) -> int:
    """GPUs of one engine."""
    return int(arguments.get("tp_size", 1)) * int(arguments.get("pp_size", 1)) * int(arguments.get("dp_size", 1))


def with_devices(arguments: dict[str, Any], platform: Platform, replica: int) -> dict[str, Any]:
    """Engine arguments of one replica (from 1) of several: on a GPU, devices of its own behind those before it."""
    if platform == "cpu" or replica == 1:
        return arguments
    devices = devices_of(arguments)
    step = int(arguments.get("gpu_id_step", 1))
    return arguments | {"base_gpu_id": int(arguments.get("base_gpu_id", 0)) + (replica - 1) * devices * step}


def runtime_versions() -> dict[str, str]:
    """Installed versions of the packages that answer; what is not installed is left out. Imports none of them."""
    found = {}
    for name in RUNTIME_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def available_cores() -> int:
    """Cores this process may use (affinity and container limits as the kernel tells them)."""
    return len(os.sched_getaffinity(0))


def parse_engine_args(pairs: list[str]) -> dict[str, Any]:
    """`K=V` pairs of the command line to SGLang arguments; V is read as JSON where it is JSON, else as text.

    Raises UsageError for a pair without `=` or without a name.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(f"--engine-arg takes NAME=VALUE, for example max_running_requests=16, not {pair!r}")
        try:
            parsed[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            parsed[name] = value
    return parsed


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables of the engine process, on top of the runner's own."""
    return process_environment(settings.platform, settings.threads) | settings_environment(settings)


def process_environment(platform: Platform, threads: int) -> dict[str, str]:
    """Those that it must be started with: they decide what is imported, and how."""
    changed = {
        # Weights and tokenizer are local by now; a hub look-up would only stall a machine without network. The user's
        # own setting stands: an engine argument may name an adapter or a draft model on the hub.
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # No module comes from the folder that the command happens to run in.
        "PYTHONSAFEPATH": "1",
        # Answers made of NaN look like answers. With this the engine dies of them, and the run finds whose they are.
        nan_check(): os.environ.get(nan_check(), "1"),
    }
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        # Three processes compile SGLang's and torch's 7,000 modules at every start otherwise (half a minute each).
        # The user's wish is about the installed packages; the cache of blendrun's own holds the bytecode instead.
        changed |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode")}
    if platform == "cpu":
        changed |= {
            "SGLANG_PLATFORM": CPU_PLATFORM,
            "SGLANG_PLUGINS": _CPU_PLUGINS,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            # NumPy's threads would be there before SGLang's processes are forked (blendrun.engine.cpu.forks).
            "OPENBLAS_NUM_THREADS": "1",
            **_waiting(),
            # Code that SGLang has torch compile runs as it is: on two cores the compiler takes longer than most jobs.
            "TORCHDYNAMO_DISABLE": os.environ.get("TORCHDYNAMO_DISABLE", "1"),
            # Flashinfer is not even imported (blendrun.engine.cpu.lean).
            "SGLANG_IS_FLASHINFER_AVAILABLE": "false",
        }
    return changed


def _waiting() -> dict[str, str]:
    """How long a thread spins that waits for the others, where the user does not say.

    Layers are hundreds of short loops a step. Sleeping at once costs a quarter of the speed; spinning as long as OpenMP
    does by default costs twenty times the speed where another process has one of the cores (docs/record/benchmarks.md).
    """
    given = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    return {} if given else {"GOMP_SPINCOUNT": "4000"}


def settings_environment(settings: EngineSettings) -> dict[str, str]:
    """Those that follow from its settings, in time before SGLang's Engine is made."""
    changed = {SETTINGS_VARIABLE: msgspec.json.encode(settings.scheduler).decode()}
    if settings.scheduler.next_use and has("next_use"):
        changed[TREE_VARIABLE] = TREE
    if settings.platform == "gpu" and shared_reads("gpu", settings.server_args) is not None:
        changed[CASCADE_VARIABLE] = "1"
    if settings.platform == "cpu" and (skipped := _models_not_needed(Path(settings.model_path))):
        changed["SGLANG_DISABLED_MODEL_ARCHS"] = ",".join(skipped)
    return changed


def _models_not_needed(model: Path) -> list[str]:
    """SGLang's model modules that do not hold this model's architecture: their import is a third of a start.

    Read as text, so that finding out costs milliseconds. Empty (import all) when the architecture cannot be told.
    """
    try:
        architectures = orjson.loads((model / "config.json").read_bytes())["architectures"] or ()
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return []
    package = importlib.util.find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        return []
    folder = Path(package.submodule_search_locations[0]) / "srt" / "models"
    sources = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    needed = {
        stem
        for stem, text in sources.items()
        if any(f"class {architecture}(" in text for architecture in architectures)
    }
    return sorted(set(sources) - needed - {"__init__", "registry"}) if needed else []


def one_scheduler(arguments: dict[str, Any]) -> bool:
    """Whether one process schedules. Several that share a model must see the same numbers at the same moment, so none
    may be told anything (`Estimates`) while they run. arguments: the user's own.
    """
    return all(arguments.get(name, 1) == 1 for name in ("tp_size", "pp_size", "dp_size"))


# A request's priority is its place in the plan: the lowest goes first, and one that was sent back comes back there.
_PLAN_ORDER = {
    "enable_priority_scheduling": True,
    "schedule_low_priority_values_first": True,
    "disable_priority_preemption": True,
    "retraction_policy": "priority",
}


def server_args(settings: EngineSettings) -> dict[str, Any]:
    """Keyword arguments of `sglang.Engine`. Raises UsageError where overlap mode or plan order is refused."""
    chosen: dict[str, Any] = {
        "model_path": settings.model_path,
        "trust_remote_code": settings.trust_remote_code,
        "log_level": "info",
        # Cached tokens in `usage.prompt_tokens_details`: the plan is judged by them.
        "enable_cache_report": True,
        # The order of arrival is the plan.
        "schedule_policy": "fcfs",
    }
    if settings.platform == "cpu":
        chosen |= {
            "device": "cpu",
            "dtype": "float32",
            "attention_backend": "torch_native",
            "sampling_backend": "pytorch",
            "max_total_tokens": CPU_KV_TOKENS,
            "max_running_requests": CPU_MAX_RUNNING,
            "watchdog_timeout": _CPU_WATCHDOG_S,
            # An idle scheduler spins on a whole core otherwise.
            "sleep_on_idle": True,
        }
        if settings.server_args.get("lora_paths") or settings.server_args.get("enable_lora"):
            chosen["lora_backend"] = CPU_LORA
    if CASCADE in (settings.server_args.get(name) for name in ("attention_backend", "decode_attention_backend")):
        if settings.platform == "cpu":
            raise UsageError(f"attention_backend={CASCADE} is for GPUs")
        if not has("cascade"):
            raise UsageError(f"attention_backend={CASCADE} takes SGLang {since('cascade')}")
        # A captured step knows how many rows there are, and not which share what.
        chosen["cuda_graph_backend_decode"] = "disabled"
    if settings.scheduler.plan_order:
        policy = settings.server_args.get("schedule_policy", chosen["schedule_policy"])
        if policy != chosen["schedule_policy"]:
            raise UsageError(f"a plan's order is kept by schedule_policy=fcfs; schedule_policy={policy} has its own")
        chosen |= _PLAN_ORDER
    facts = JobFacts(budget=settings.scheduler.budget)
    overlap = overlap_arguments(settings.overlap, settings.platform, settings.server_args, facts)
    if isinstance(overlap, OverlapRefusal):
        raise UsageError(overlap.sentence)
    return chosen | overlap | settings.server_args
