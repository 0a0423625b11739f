"""The scheduler's side of a tunnel: SGLang's Scheduler in a process of its own, step by step with the feeder."""

from __future__ import annotations

import array
import os
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import orjson
import torch
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from blendrun.engine import older, sglang_names
from blendrun.engine.base import EngineSettings
from blendrun.engine.loopback import RENDEZVOUS_VARIABLE
from blendrun.engine.scheduler import plugin
from blendrun.engine.scheduler.hooks import Hook, install
from blendrun.engine.scheduler.planned import attach_plan
from blendrun.engine.settings import runtime_versions, server_args, settings_environment
from blendrun.engine.sglang_names import RETRACT, load
from blendrun.engine.tunnel.base import Failed, Poll, Started, TunnelLog, TunnelRequest, TunnelSettings
from blendrun.engine.tunnel.models.nothing import END_TOKEN
from blendrun.scratch import Scratch, closing_scratch

# Imported here, once for all schedulers, which are forked from this process.
_Scheduler: Any = load(sglang_names.SCHEDULER)
_Sampling: Any = load(sglang_names.SAMPLING_PARAMS)
_Tokenized: Any = load(sglang_names.TOKENIZED)

# As small as SGLang makes them: 64 bytes of KV cache a token.
_CONFIG = {
    "architectures": ["ComputesNothing"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 64,
    "eos_token_id": END_TOKEN,
    "bos_token_id": 0,
    "torch_dtype": "float32",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}


def serve(connection: Connection, settings: TunnelSettings) -> None:
    """Run a scheduler until the feeder has no more, then send a `TunnelLog`; a `Failed` where it raises."""
    try:
        with closing_scratch("tunnel") as scratch:
            # SGLang's sockets, too.
            tempfile.tempdir = str(scratch.path)
            connection.send(_run(connection, settings, scratch))
    except BaseException:  # noqa: BLE001  # whatever it is, the feeder must hear of it
        connection.send(Failed(traceback.format_exc()))
    # SGLang's threads would be waited for.
    os._exit(0)


def _run(connection: Connection, settings: TunnelSettings, scratch: Scratch) -> TunnelLog:
    folder = scratch.path
    config = _CONFIG | {"max_position_embeddings": settings.context_length}
    (folder / "config.json").write_bytes(orjson.dumps(config))
    engine = EngineSettings(
        model_path=str(folder),
        platform="cpu",
        threads=1,
        server_args={
            "skip_tokenizer_init": True,
            "load_format": "dummy",
            "log_level": "error",
            "context_length": settings.context_length,
            "max_total_tokens": settings.pool_tokens,
            "max_running_requests": settings.max_running,
            "sleep_on_idle": False,
        },
        scheduler=settings.scheduler,
        overlap=settings.overlap,
    )
    # The hooks are timed here, not put in by the plug-in.
    os.environ |= settings_environment(engine) | {
        plugin.SETTINGS_VARIABLE: "",
        RENDEZVOUS_VARIABLE: f"file://{folder / 'rendezvous'}",
    }
    cpu, proofs = defaultdict[str, float](float), str(folder / "proof")
    install([_timed(hook, cpu) for hook in plugin.hooks(settings.scheduler)], proofs)
    retracted: list[int] = []
    HookRegistry.register(RETRACT, _counting(retracted), HookType.AROUND)
    load_plugins()
    arguments = {"chunked_prefill_size": settings.chunk} | server_args(engine)
    scheduler = older.new_scheduler(_Tunnelled, load(sglang_names.SERVER_ARGS)(**arguments))
    scratch.note_shared([os.getpid()])
    scheduler.connect(connection, cpu)
    scheduler.run_event_loop()
    return TunnelLog(
        steps=np.array(scheduler.steps, dtype=np.float64).reshape(-1, 5),
        hit_tokens=scheduler.hits,
        recomputed_tokens=scheduler.recomputed,
        retractions=sum(retracted),
        cpu_seconds=dict(cpu),
        notes=tuple(plugin.notes(settings.scheduler, plugin.missing(settings.scheduler, proofs))),
    )


def _counting(found: list[int]) -> Callable[..., Any]:
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        found.append(len(result[0]))
        return result

    return around


def _timed(hook: Hook, cpu: dict[str, float]) -> Hook:
    """`hook`, whose own CPU seconds (without those of SGLang's function) are added up under its feature."""

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        inside = 0.0

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            begun = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                inside += time.thread_time() - begun

        begun = time.thread_time()
        try:
            if hook.kind == "around":
                return hook.function(timed, *args, **kwargs)
            result = timed(*args, **kwargs)
            hook.function(result, *args, **kwargs)
            return result
        finally:
            cpu[hook.feature] += time.thread_time() - begun - inside

    return replace(hook, function=around, kind="around")


class _Outputs:
    """Takes the place of the socket to the detokenizer."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def send_output(self, output: Any, *_: Any) -> None:
        reasons = getattr(output, "finished_reasons", ())
        self.ended += [int(rid) for rid, reason in zip(output.rids, reasons, strict=True) if reason is not None]


class _Tunnelled(_Scheduler):  # type: ignore[misc]  # SGLang's class is untyped here
    """SGLang's Scheduler: requests come from the feeder between two steps, and each step is noted down."""

    def connect(self, connection: Connection, cpu: dict[str, float]) -> None:
        """Take requests from `connection` from now on. cpu: seconds of this thread by part."""
        self._connection, self._cpu = connection, cpu
        self._outputs = self.output_streamer.send_to_detokenizer = _Outputs()
        self.request_receiver = SimpleNamespace(recv_requests=self._poll)
        self._inside = 0
        self._answers: dict[str, int] = {}
        self._told: tuple[int, int] = (-1, -1)
        self.steps: list[tuple[float, ...]] = []
        self.hits = self.recomputed = 0
        self._filling: Any = None
        self._began: float | None = None
        model = self.tp_worker.model_runner.model
        self._ends_at = model.ends_at = torch.zeros(self.req_to_token_pool.size + 1, dtype=torch.int64)
        forward = self.tp_worker.forward_batch_generation

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            try:
                return forward(*args, **kwargs)
            finally:
                cpu["model"] += time.thread_time() - begun

        self.tp_worker.forward_batch_generation = timed
        connection.send(
            Started(
                max_running=int(self.max_running_requests),
                versions=runtime_versions(),
            )
        )

    def _poll(self, local_reqs: list[Any] | None = None) -> list[Any]:
        """Requests that have come in. Asks where something has changed since it last did, or nothing is left to do."""
        ended, self._outputs.ended = self._outputs.ended, []
        self._inside -= len(ended)
        for number in ended:
            del self._answers[str(number)]
        running = self._inside - len(self.waiting_queue)
        if not ended and self._inside and self._told == (self._inside, running):
            return []
        if self._began is not None:
            self._cpu["all"] += time.thread_time() - self._began
        self._connection.send(Poll(ended))
        requests: list[TunnelRequest] | None = self._connection.recv()
        self._began = time.thread_time()
        if requests is None:
            self.gracefully_exit = True
            return []
        self._inside += len(requests)
        self._told = (self._inside, running)
        return [self._made(request) for request in requests]

    def _made(self, request: TunnelRequest) -> Any:
        rid = str(request.number)
        ids = array.array("q")
        ids.frombytes(request.ids)
        self._answers[rid] = len(ids) + request.output - 1
        params: dict[str, Any] = {
            "max_new_tokens": request.output if request.known else request.bound,
            "ignore_eos": request.known,
            "temperature": 0.0,
        }
        carried = _Carried(params)
        if request.plan is not None:
            attach_plan(carried, request.plan)
        sampling = _Sampling(**carried.sampling_params)
        sampling.normalize(None)
        return _Tokenized(
            rid=rid,
            input_text=None,
            input_ids=ids,
            input_embeds=None,
            mm_inputs=None,
            token_type_ids=None,
            sampling_params=sampling,
            return_logprob=False,
            logprob_start_len=-1,
            top_logprobs_num=0,
            token_ids_logprob=None,
            stream=False,
            extra_key=request.key,
            priority=carried.priority,
        )

    def run_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        self._note(batch)
        return super().run_batch(batch, *args, **kwargs)

    def _note(self, batch: Any) -> None:
        """Log a step, and tell the model where the answers of its newcomers end."""
        if batch.forward_mode.is_decode():
            self.steps.append((0.0, 0.0, float(len(batch.reqs)), float(batch.seq_lens_cpu.sum()), 0.0))
            return
        beside = len(batch.decoding_reqs or ())
        count = len(batch.reqs) - beside
        square, filled, new = 0.0, 0, 0
        for request, known, added in zip(batch.reqs[:count], batch.prefix_lens, batch.extend_lens, strict=False):
            square += float(known + added) ** 2 - float(known) ** 2
            filled += added
            new += request is not self._filling
            self._ends_at[older.slot(request)] = self._answers[request.rid]
        self._filling = batch.chunked_req
        context = float(batch.seq_lens_cpu[count:].sum()) if beside else 0.0
        stats = batch.prefill_stats
        if stats is not None:
            self.hits += stats.log_hit_tokens - stats.reprocessed_log_hit_tokens
            self.recomputed += stats.reprocessed_log_input_tokens
        self.steps.append((float(filled), square, float(beside), context, float(new)))


class _Carried(msgspec.Struct):
    """What `attach_plan` writes to: SGLang's request as the tokenizer's side has it."""

    sampling_params: dict[str, Any]
    priority: int | None = None
