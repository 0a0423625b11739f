"""SGLang's Engine on the CPU: its processes are forks of the engine process, and share one tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

from sglang.srt.entrypoints.engine import Engine

from blendrun.engine.cpu.forks import forking


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

    Names of SGLang 0.5.23. Where they are others, or a process wants other arguments, it loads its own.
    """
    from sglang.srt.managers import detokenizer_manager, scheduler, tokenizer_manager, tp_worker

    try:
        serving, model = scheduler.get_serving(), scheduler.get_model()
        load = cache(scheduler.get_tokenizer)
        if not serving.skip_tokenizer_init:
            load(
                serving.tokenizer_path,
                tokenizer_mode=serving.tokenizer_mode,
                trust_remote_code=model.trust_remote_code,
                revision=model.revision,
                tokenizer_backend=serving.tokenizer_backend,
            )
    except Exception:  # noqa: BLE001  # whatever it is, SGLang's own loading says it better
        return
    for module in (detokenizer_manager, scheduler, tokenizer_manager, tp_worker):
        if hasattr(module, "get_tokenizer"):
            module.get_tokenizer = load
