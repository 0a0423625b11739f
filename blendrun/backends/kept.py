"""What a plan leaves out because a run would: copies of requests, and answers kept from earlier runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blendrun.backends.purpose import find_purpose
from blendrun.backends.same import DEFAULT_SIZE, apart_of, cache_settings, greedy_urls, sameness
from blendrun.backends.sglang import engine_settings
from blendrun.cost.base import Machine
from blendrun.engine.settings import answer_settings, runtime_versions
from blendrun.errors import InputMissingError
from blendrun.events import Listener
from blendrun.jobs.job import Job
from blendrun.jobs.same import Sameness
from blendrun.models.resolve import ResolvedModel, resolve_model
from blendrun.names import Dedupe, EngineName, Purpose
from blendrun.runner.kept_answers import KeptAnswers
from blendrun.store.manifest import salt_of


class Asked(Protocol):
    """What is asked for; fields as in `PlanOptions`."""

    @property
    def model(self) -> str | None: ...
    @property
    def tokenizer(self) -> Path | None: ...
    @property
    def dedupe(self) -> Dedupe: ...
    @property
    def cache(self) -> Path | None: ...
    @property
    def arguments(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class FindKept:
    """Finds rows whose answers SGLang's engine would not be asked for."""

    model: ResolvedModel
    folder: Path
    machine: Machine
    arguments: dict[str, Any]
    listener: Listener

    def __call__(self, job: Job, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows (i64) that have an answer."""
        platform: Any = "cpu" if self.machine.card.kind == "cpu" else "gpu"
        arguments = engine_settings(self.model, platform, 1, self.arguments).server_args
        purpose = find_purpose(self.model, arguments)(job)
        embeds = {} if purpose is Purpose.GENERATE else {"is_embedding": True}
        decides = answer_settings(arguments) | {"platform": platform} | embeds
        found = cache_settings(self.folder, DEFAULT_SIZE, runtime_versions(), apart_of(self.model.path, arguments))
        assert found is not None, "there is a folder"
        salt = salt_of(self.model.identity, str(EngineName.SGLANG), decides)
        return KeptAnswers(found, job, salt, self.listener).rows(rows)


def looked_for(options: Asked, machine: Machine, listener: Listener) -> tuple[Sameness | None, FindKept | None]:
    """Which requests are equal, and what finds kept answers. Raises InputMissingError where a cache needs a model."""
    unknown = sameness(options.dedupe, frozenset(), keeps=False), None
    if options.cache is None and options.tokenizer is not None:
        # A plan with a tokenizer needs no file of the model's.
        return unknown
    try:
        model = resolve_model(
            str(options.model), platform="cpu", listener=listener, weights=False, light=options.cache is None
        )
    except InputMissingError:
        if options.cache is not None:
            raise
        return unknown
    arguments = options.arguments
    same = sameness(options.dedupe, greedy_urls(model.path, arguments), keeps=options.cache is not None)
    if options.cache is None or not options.cache.is_dir():
        return same, None
    return same, FindKept(model, options.cache, machine, arguments, listener)
