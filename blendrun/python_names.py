"""What `sglang.Engine` takes and has, and `blendrun.Engine` does not: by name, with what to use instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from blendrun.errors import UsageError

_MEDIA = "pictures, sounds and videos stand in the messages of a chat: Engine.chat"
_WORKER = "the plan decides which engine answers what"
_SESSION = "give the whole prompt: what prompts begin with is computed once"
_VECTORS = "vectors in the place of tokens are not taken"
_INNER = "answers have no inner states of the model"
ARGUMENTS = {
    "image_data": _MEDIA,
    "audio_data": _MEDIA,
    "video_data": _MEDIA,
    "mm_hashes": _MEDIA,
    "mm_content_hashes": _MEDIA,
    "stream": "answers as they finish: Engine.stream(requests)",
    "custom_logit_processor": "code in a request is not run; `sampling_params` may have logit_bias, regex, json_schema",
    "require_reasoning": "reasoning is a chat's: Engine.chat",
    "return_hidden_states": f"{_INNER} here; Engine.chat(…, return_hidden_states=True)",
    "return_routed_experts": f"{_INNER} here; Engine.chat(…, return_routed_experts=True)",
    "routed_experts_start_len": f"{_INNER} here; Engine.chat",
    "bootstrap_host": _WORKER,
    "bootstrap_port": _WORKER,
    "bootstrap_room": _WORKER,
    "routed_dp_rank": _WORKER,
    "disagg_prefill_dp_rank": _WORKER,
    "data_parallel_rank": _WORKER,
    "kv_hints": _WORKER,
    "external_trace_header": "nothing is traced across processes here; a run has --trace-out",
    "rid": "answers stand in the order of their prompts; each has an id of its own in `meta_info`",
    "session_params": _SESSION,
    "session_id": _SESSION,
    "priority": 'the plan decides the order; Engine(…, options={"order": "given"}) keeps yours',
    "cache_salt": "Engine.chat(…, cache_salt=…)",
    "embed_override_token_id": _VECTORS,
    "embed_overrides": _VECTORS,
    "query_embed_overrides": _VECTORS,
    "item_embed_overrides": _VECTORS,
    "stacked_query_item_embed_overrides": _VECTORS,
    "score_extraction_token_id": 'Engine.stream([{"url": "/v1/score", "body": {…, "score_extraction_token": TEXT}}])',
}
# What SGLang's default of it is.
_ZERO = ("routed_experts_start_len",)
_WEIGHTS = "weights stay as they were loaded: make a new Engine of other ones"
_ADAPTERS = "adapters are declared at the start: Engine(…, lora_paths={NAME: FOLDER})"
_MEMORY = "`shutdown()` frees all memory, and a new Engine loads the model again"
_PROFILE = "the engine is a process of its own; `blendrun bench` measures"
_RUN_INFO = "`blendrun doctor` and `blendrun plan` say what runs where"
_INSIDE = "the engine is a process of its own"
_FORK = f"{_INSIDE}; SGLang's plug-ins change it"
ATTRIBUTES = {
    "rerank": 'Engine.stream([{"url": "/v1/rerank", "body": {"query": …, "documents": […]}}])',
    "flush_cache": "the cache stays between calls; a new Engine begins with an empty one",
    "open_session": _SESSION,
    "close_session": _SESSION,
    "start_profile": _PROFILE,
    "stop_profile": _PROFILE,
    "start_expert_distribution_record": _PROFILE,
    "stop_expert_distribution_record": _PROFILE,
    "dump_expert_distribution_record": _PROFILE,
    "get_server_info": _RUN_INFO,
    "get_model_info": _RUN_INFO,
    "init_weights_update_group": _WEIGHTS,
    "destroy_weights_update_group": _WEIGHTS,
    "begin_weight_update": _WEIGHTS,
    "end_weight_update": _WEIGHTS,
    "update_weights_from_distributed": _WEIGHTS,
    "update_weights_from_tensor": _WEIGHTS,
    "update_weights_from_disk": _WEIGHTS,
    "update_weights_from_ipc": _WEIGHTS,
    "get_weights_by_name": "read the files of the model's folder",
    "load_lora_adapter_from_tensors": _ADAPTERS,
    "load_lora_adapter": _ADAPTERS,
    "unload_lora_adapter": _ADAPTERS,
    "async_load_lora_adapter": _ADAPTERS,
    "async_unload_lora_adapter": _ADAPTERS,
    "release_memory_occupation": _MEMORY,
    "resume_memory_occupation": _MEMORY,
    "freeze_gc": _INSIDE,
    "collective_rpc": _INSIDE,
    "get_all_child_pids": f"{_INSIDE}, which ends with `shutdown()` or with yours",
    "attach_tokenizer_worker": _INSIDE,
    "save_remote_model": _WEIGHTS,
    "save_sharded_model": _WEIGHTS,
    "tokenizer_manager": "the tokenizer is in another process: transformers.AutoTokenizer.from_pretrained(MODEL)",
    "server_args": "they are what this Engine was given, and SGLang's defaults",
    "template_manager": "Engine.chat renders a conversation by the model's template",
    "loop": "the async methods run in the loop that is there",
    "port_args": _INSIDE,
    "send_to_rpc": _INSIDE,
    "tokenizer_router": _INSIDE,
    "server_args_class": _FORK,
    "init_tokenizer_manager_func": _FORK,
    "run_scheduler_process_func": _FORK,
    "run_detokenizer_process_func": _FORK,
}


def refuse_arguments(method: str, given: Mapping[str, Any], taken: Collection[str]) -> None:
    """Raises UsageError for the first argument that says something and is not taken.

    What SGLang has by default says nothing.
    """
    for name, value in given.items():
        says_nothing = value is None or value is False or (name in _ZERO and value == 0)
        if name in taken or (name in ARGUMENTS and says_nothing):
            continue
        what = ARGUMENTS.get(name)
        raise UsageError(f"{method} does not take {name}" + (f": {what}" if what else ""))


def missing(name: str) -> str:
    """The message on an attribute that is not there."""
    what = ATTRIBUTES.get(name)
    return f"blendrun.Engine has no `{name}`" + (f": {what}" if what else "")
