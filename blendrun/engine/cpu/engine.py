"""SGLang's Engine on the CPU: its processes are forks of the engine process, and share one tokenizer."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from sglang.srt.entrypoints.engine import Engine

from blendrun.engine.cpu.forks import forking
from blendrun.engine.sglang_names import LOAD_TOKENIZER, MODEL_SETTINGS, SERVING_SETTINGS, is_there, load


class ForkingEngine(Engine):  # type: ignore[misc]  # SGLang's class is untyped here
    """`sglang.Engine`, whose two methods that start processes are made to be overridden.

    forks: how many times it started processes as forks; two on a start that went as meant.
    """

    forks = 0

    @classmethod
    def _launch_scheduler_processes(cls, *arguments: Any, **options: Any) -> Any:
        share_tokenizer()
        with forking() as safe:
            cls.forks += safe
            return super()._launch_scheduler_processes(*arguments, **options)

    @classmethod
    def _launch_detokenizer_subprocesses(cls, *arguments: Any, **options: Any) -> Any:
        with forking() as safe:
            cls.forks += safe
            return super()._launch_detokenizer_subprocesses(*arguments, **options)

    @classmethod
    def note(cls) -> str | None:
        """A sentence where processes were not forked."""
        if cls.forks >= 2:
            return None
        return "SGLang's processes were not forked: all is well, and the engine took some seconds longer to start"


def share_tokenizer() -> None:
    """Load the tokenizer now, once for all: SGLang's three processes load it four times otherwise, at half a second.

    Where names are others than these, or a process wants other arguments, it loads its own.
    """
    try:
        serving, model = load(SERVING_SETTINGS)(), load(MODEL_SETTINGS)()
        shared = cache(load(LOAD_TOKENIZER[0]))
        if not serving.skip_tokenizer_init:
            shared(
                serving.tokenizer_path,
                tokenizer_mode=serving.tokenizer_mode,
                trust_remote_code=model.trust_remote_code,
                revision=model.revision,
                tokenizer_backend=serving.tokenizer_backend,
            )
    except Exception:  # noqa: BLE001  # whatever it is, SGLang's own loading says it better
        return
    for name in filter(is_there, LOAD_TOKENIZER):
        module, _, function = name.rpartition(".")
        setattr(import_module(module), function, shared)
