"""What blendrun touches of SGLang that SGLang does not promise to keep: names, and in which versions they hold.

SGLang is not imported here before a function is called. The rest of the code speaks the newest version's words; what
older ones call otherwise is translated in `engine.older`. What is promised (`Engine` and its arguments, platforms,
plug-ins) is imported where it is used, and stands here too, so that one test looks at all of it.

`scripts/compat.sh` runs what is said here, version by version.
"""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Versions that were tried, the first and the last; all between were too.
FIRST, LAST = "0.5.17", "0.5.23"

_SRT = "sglang.srt"
_MANAGERS = f"{_SRT}.managers"
_CACHE = f"{_SRT}.mem_cache"

# The engine process.
ENGINE = f"{_SRT}.entrypoints.engine.Engine"
LAUNCH_SCHEDULER = f"{ENGINE}._launch_scheduler_processes"
LAUNCH_DETOKENIZER = f"{ENGINE}._launch_detokenizer_subprocesses"
SIGNAL_HANDLER = f"{_MANAGERS}.tokenizer_manager.SignalHandler"
SIGQUIT_HANDLER = f"{SIGNAL_HANDLER}.running_phase_sigquit_handler"
SIGTERM_HANDLER = f"{SIGNAL_HANDLER}.sigterm_handler"
SERVING_SETTINGS = f"{_MANAGERS}.scheduler.get_serving"
MODEL_SETTINGS = f"{_MANAGERS}.scheduler.get_model"
# Each of these modules calls it by a name of its own.
LOAD_TOKENIZER = tuple(
    f"{_MANAGERS}.{module}.get_tokenizer"
    for module in ("scheduler", "detokenizer_manager", "tokenizer_manager", "tp_worker")
)

# Requests, through SGLang's OpenAI classes.
_CHAT = f"{_SRT}.entrypoints.openai.serving_chat.OpenAIServingChat"
_COMPLETIONS = f"{_SRT}.entrypoints.openai.serving_completions.OpenAIServingCompletion"
SERVING_METHODS = tuple(
    f"{serving}.{method}"
    for serving in (_CHAT, _COMPLETIONS)
    for method in ("_validate_request", "_convert_to_internal_request", "_handle_non_streaming_request")
)
# How strictly a tool's schema binds a call: the levels, and the variable that says which.
TOOL_LEVELS, TOOL_LEVEL = f"{_SRT}.environ.ToolStrictLevel", f"{_SRT}.environ.envs.SGLANG_TOOL_STRICT_LEVEL"
# Its file is read alone, without SGLang.
SCHEMA_REFUSAL = f"{_SRT}.constrained.json_schema_validation.validate_xgrammar_json_schema"

# The CPU platform.
PLATFORM = f"{_SRT}.platforms.interface.SRTPlatform"
KV_POOL = f"{_CACHE}.memory_pool.MHATokenToKVPool"
TOKEN_ALLOCATOR = f"{_CACHE}.allocator.token.TokenToKVPoolAllocator"
_NATIVE_ATTENTION = f"{_SRT}.layers.attention.torch_native_backend.TorchNativeAttnBackend"
BEGIN_ATTENTION = f"{_NATIVE_ATTENTION}.init_forward_metadata"
EXTEND_ATTENTION = f"{_NATIVE_ATTENTION}._run_sdpa_forward_extend"
DECODE_ATTENTION = f"{_NATIVE_ATTENTION}._run_sdpa_forward_decode"
LINEAR = f"{_SRT}.layers.quantization.unquant.UnquantizedLinearMethod.apply"
NORM, SILU = f"{_SRT}.layers.layernorm.RMSNorm.forward_native", f"{_SRT}.layers.activation.SiluAndMul.forward_native"
ROTARY = f"{_SRT}.layers.rotary_embedding.base.RotaryEmbedding.forward_native"
LM_HEAD = f"{_SRT}.layers.logits_processor.LogitsProcessor._compute_lm_head"

# Adapters on the CPU: a method, and two modules.
LORA_MANAGER = f"{_SRT}.lora.lora_manager.LoRAManager.__init__"
LORA_LAYERS, LORA_PRODUCTS = f"{_SRT}.lora.layers", f"{_SRT}.lora.backend.torch_backend"

# What SGLang's platform for CPUs would bring; ours brings it itself, before the version that does (cpu/older.py).
XGRAMMAR = f"{_SRT}.constrained.xgrammar_backend"
ALLOCATE_MASK = f"{XGRAMMAR}._allocate_token_bitmask"
APPLY_MASK = f"{XGRAMMAR}.XGrammarGrammar.apply_vocab_mask"

# Seeds.
_BATCH_INFO = f"{_SRT}.sampling.sampling_batch_info.SamplingBatchInfo"
BATCH_INFO = f"{_BATCH_INFO}.from_schedule_batch"
MERGE_BATCH_INFO = f"{_BATCH_INFO}.merge_batch"
SAMPLE = f"{_SRT}.layers.sampler.top_k_top_p_min_p_sampling_from_probs_torch"
SEEDED_DRAW = f"{_SRT}.layers.sampler.multinomial_with_seed"

# The scheduler. Its hooks are in blendrun/engine/scheduler.
SCHEDULER, _ADDER = f"{_MANAGERS}.scheduler.Scheduler", f"{_MANAGERS}.schedule_policy.PrefillAdder"
NEW_PREFILL_BATCH = f"{SCHEDULER}.get_new_batch_prefill"
SORT_WAITING = f"{_MANAGERS}.schedule_policy.SchedulePolicy.calc_priority"
BATCH_PLAN = f"{_MANAGERS}.schedule_batch.NextBatchPlan"
NEW_ADDER = f"{_ADDER}.__init__"
ADD_REQUEST = f"{_ADDER}.add_one_req"
ADD_CHUNK = f"{_ADDER}.add_chunked_req"
ADD_RESULT = f"{_MANAGERS}.schedule_policy.AddReqResult"
LOCK_PREFIX = f"{_ADDER}._lock_node"
# Most tokens of an answer that admission reserves.
LONGEST_RESERVED = f"{_MANAGERS}.schedule_policy.CLIP_MAX_NEW_TOKENS"
FILL_MASK = f"{XGRAMMAR}.XGrammarGrammar.fill_vocab_mask"
RUN_BATCH = f"{SCHEDULER}.run_batch"
BATCH_RESULT = f"{SCHEDULER}.process_batch_result"
RETRACT = f"{_MANAGERS}.schedule_batch.ScheduleBatch.retract_decode"
FLUSH, IDLE = f"{SCHEDULER}.flush_cache", f"{SCHEDULER}.is_fully_idle"
PARALLEL = f"{_SRT}.runtime_context.get_parallel"

# A scheduler of our own making, in a tunnel.
GENERATE = f"{_MANAGERS}.io_struct.GenerateReqInput"
TOKENIZED = f"{_MANAGERS}.io_struct.TokenizedGenerateReqInput"
SAMPLING_PARAMS = f"{_SRT}.sampling.sampling_params.SamplingParams"
LOGITS_OUTPUT = f"{_SRT}.layers.logits_processor.LogitsProcessorOutput"
SERVER_ARGS, PORT_ARGS = f"{_SRT}.server_args.ServerArgs", f"{_SRT}.server_args.PortArgs"
PUBLISH, SPAWN_RANKS = f"{_SRT}.runtime_context.publish", f"{_SRT}.runtime_context.SpawnRanks"

# What came of an engine's arguments; the older names are from before 0.5.19.
_ARGUMENTS = f"{_SRT}.arg_groups"
SETTLED, BACKENDS = (f"{_ARGUMENTS}.model_override_base.{name}" for name in ("resolving_view", "attention_backends_of"))
OLDER_SETTLED, OLDER_BACKENDS = (
    f"{_ARGUMENTS}.overrides.{name}" for name in ("resolved_view", "attention_backends_of")
)

# Decode attention by itself. Not looked at on an engine's start: it is for GPUs.
_ATTENTION = "sglang.kernels.ops.attention"
FLASH_ATTENTION = f"{_ATTENTION}.flash_attention.flash_attn_with_kvcache"
TRITON_ATTENTION = f"{_ATTENTION}.decode_attention.decode_attention_fwd"
KV_SPLITS = f"{_ATTENTION}.metadata.get_num_kv_splits_triton"

# Attention backends of others (`engine.cascade`).
REGISTER_ATTENTION = f"{_SRT}.layers.attention.attention_registry.register_attention_backend"
ATTENTION_CHOICES = f"{_SRT}.arg_groups.choices.add_attention_backend_choices"
_FLASHINFER = f"{_SRT}.layers.attention.flashinfer_backend"
FLASHINFER_ATTENTION = tuple(
    f"{_FLASHINFER}.{name}"
    for name in (
        *("FlashInferAttnBackend.init_forward_metadata", "FlashInferAttnBackend.forward_decode", "DecodeMetadata"),
        "FlashInferAttnBackend._kv_write_scales",
    )
)
WRITE_PLACE = f"{_CACHE}.memory_pool.KVWriteLoc.for_layer"
RADIX_ATTENTION = f"{_SRT}.layers.radix_attention.RadixAttention"

# The tree of prefixes: the one in Python, which is chosen by a variable.
TREE_VARIABLE, TREE = "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND", "python"
NEW_TREE = f"{_CACHE}.unified_cache.unified_tree_core.UnifiedTreeCore.__init__"
CHECKPOINT = f"{_CACHE}.unified_radix_cache.UnifiedRadixCache.checkpoint_into_tree"
_EVICTION = f"{_CACHE}.unified_cache.components.full.FullComponent._evict_device"
EVICTION_START, EVICTION_NEXT = f"{_EVICTION}_start", f"{_EVICTION}_next_node"
LRU_STRATEGY = f"{_CACHE}.evict_policy.LRUStrategy"
INSERT_PARAMS = f"{_CACHE}.base_prefix_cache.InsertParams"
RADIX_KEY = f"{_CACHE}.radix_cache.RadixKey"

# By what it is for; what hooks of the scheduler are for has their features' names.
TOUCHED: dict[str, tuple[str, ...]] = {
    "the engine process": (ENGINE, SIGNAL_HANDLER, SIGQUIT_HANDLER, SIGTERM_HANDLER),
    "forks": (LAUNCH_SCHEDULER, LAUNCH_DETOKENIZER, SERVING_SETTINGS, MODEL_SETTINGS, *LOAD_TOKENIZER),
    "requests": SERVING_METHODS,
    "tools that must be called": (TOOL_LEVELS, TOOL_LEVEL),
    "schemas": (SCHEMA_REFUSAL,),
    "the CPU platform": (PLATFORM, KV_POOL, TOKEN_ALLOCATOR, ALLOCATE_MASK, APPLY_MASK),
    "attention on the CPU": (BEGIN_ATTENTION, EXTEND_ATTENTION, DECODE_ATTENTION),
    "products on the CPU": (LINEAR, LM_HEAD),
    "layers on the CPU": (NORM, SILU, ROTARY),
    "adapters on the CPU": (LORA_MANAGER, LORA_LAYERS, LORA_PRODUCTS),
    "seeds on the CPU": (BATCH_INFO, MERGE_BATCH_INFO, SAMPLE, SEEDED_DRAW),
    "gate": (NEW_PREFILL_BATCH, ADD_REQUEST, ADD_RESULT),
    "budget": (NEW_PREFILL_BATCH, NEW_ADDER, BATCH_PLAN),
    "reserve": (
        NEW_PREFILL_BATCH,
        NEW_ADDER,
        ADD_REQUEST,
        ADD_CHUNK,
        ADD_RESULT,
        LOCK_PREFIX,
        LONGEST_RESERVED,
        BATCH_PLAN,
    ),
    "sides": (NEW_PREFILL_BATCH, SORT_WAITING, ADD_REQUEST, ADD_RESULT, RUN_BATCH),
    "next_use": (NEW_TREE, CHECKPOINT, EVICTION_START, EVICTION_NEXT, LRU_STRATEGY, INSERT_PARAMS, RADIX_KEY),
    "dead_end": (FILL_MASK,),
    "step_log": (RUN_BATCH, BATCH_RESULT, RETRACT, PARALLEL),
    "kept": (FLUSH, IDLE),
    "what an engine settled on": (SETTLED, BACKENDS),
    "cascade": (REGISTER_ATTENTION, ATTENTION_CHOICES, *FLASHINFER_ATTENTION, WRITE_PLACE, RADIX_ATTENTION),
    "bench tunnel": (
        *(SCHEDULER, RETRACT, TOKENIZED, SAMPLING_PARAMS, LOGITS_OUTPUT),
        *(SERVER_ARGS, PORT_ARGS, PUBLISH, SPAWN_RANKS),
    ),
}
# The first version that has it, where that is not FIRST.
SINCE = {
    SETTLED: "0.5.19",
    BACKENDS: "0.5.19",
    EVICTION_START: "0.5.20",
    EVICTION_NEXT: "0.5.20",
    ATTENTION_CHOICES: "0.5.20",
    SCHEMA_REFUSAL: "0.5.21",
    SPAWN_RANKS: "0.5.21",
    CHECKPOINT: "0.5.22",
    WRITE_PLACE: "0.5.22",
}

# Words by which a failure is known; they reach a request's answer.
GRAMMAR_FAILURE = "Failed to compile"
# A grammar that allows no token; see `tells_dead_ends`.
GRAMMAR_DEAD_END = "Grammar accept_token failed"
MEDIA_FAILURE = "Error while loading data"
LENGTH_FAILURE = "longer than the model's context length"
# Sampling parameters that bind an answer to a form.
GRAMMARS = ("json_schema", "regex", "ebnf", "structural_tag")


@cache
def installed() -> str | None:
    """The version of SGLang in this environment; None where there is none."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return None


def reaches(needed: str) -> bool:
    """Whether the installed version is `needed` or newer. One that is not installed counts as the newest."""
    found = installed()
    return found is None or _release(found) >= _release(needed)


def since(feature: str) -> str:
    """The first version that has all that `feature` touches."""
    return max((SINCE.get(name, FIRST) for name in TOUCHED[feature]), key=_release)


def has(feature: str) -> bool:
    """Whether the installed version is new enough for it."""
    return reaches(since(feature))


@cache
def load(name: str) -> Any:
    """What a dotted path leads to. Imports its module. Raises ImportError or AttributeError."""
    return pkgutil.resolve_name(name)


def is_there(name: str) -> bool:
    """Whether the installed SGLang has it. Imports the module that should."""
    try:
        load(name)
    except Exception:  # noqa: BLE001  # a module may fail to be imported with anything
        return False
    return True


def lost() -> list[str]:
    """Features that lack a name which the installed version should have. Imports most of SGLang."""
    return [
        feature
        for feature, names in TOUCHED.items()
        if not all(is_there(name) for name in names if reaches(SINCE.get(name, FIRST)))
    ]


def untried() -> str | None:
    """A sentence where the installed version is none that was tried: what of it is not where it was."""
    found = installed()
    if found is None or _release(FIRST) <= _release(found) <= _release(LAST):
        return None
    gone = ", ".join(lost())
    looked = f"these find no longer what they touch: {gone}" if gone else "all that is touched of it is there"
    return f"blendrun was tried with SGLang {FIRST} to {LAST}, and this is {found}: {looked}"


def tells_dead_ends() -> bool:
    """Whether a request that a grammar leaves no way on ends with GRAMMAR_DEAD_END; before, it is just aborted."""
    return reaches("0.5.23")


def nan_check() -> str:
    """The variable that has the engine end where logits are no numbers. The older one turns on other checks, too."""
    return "SGLANG_ENABLE_NAN_LOGITS_CHECK" if reaches("0.5.22") else "SGLANG_ENABLE_ASYNC_ASSERT"


@cache
def strictest_tools() -> tuple[str, str] | None:
    """The variable that says how strictly a tool's schema binds, and its value for every tool; None where it is gone.

    All versions that were tried have it; without it a call that must come is bound as its tool says itself.
    """
    try:
        return str(load(TOOL_LEVEL).name), str(int(load(TOOL_LEVELS).PARAMETER))
    except (ImportError, AttributeError):
        return None


def _release(found: str) -> tuple[int, ...]:
    """The numbers of a version, without what makes it a post, pre or local one."""
    numbers = re.match(r"\d+(\.\d+)*", found)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
