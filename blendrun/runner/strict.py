"""`--strict`: everything that can be found wrong with a job before an engine is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.grammars import Form, GrammarsUnavailableError, compile_forms, form_of
from blendrun.errors import ErrorCode, InputMissingError, LineError
from blendrun.events import Listener, Note, PhaseStarted
from blendrun.jobs.job import Job
from blendrun.tokens.build import TokenizedJob, build_prompts
from blendrun.tokens.check import RefusedPrompts, refused_prompts
from blendrun.tokens.load import load_engine_tokenizer

# Of a context, or of a KV pool that is smaller: what SGLang keeps free behind the longest prompt that it admits
# (0.5.23, model_runner: max_req_len is one less than either, max_req_input_len five less, and a prompt is shorter).
_KEPT_FREE = 7


@dataclass(frozen=True, slots=True)
class JobCheck:
    """Checks the lines of a job that are requests.

    model, path: its name and folder. context_length, pool_tokens: of the engine; None where unknown.
    arguments: the engine's, as the user gave them. bidirectional: as `ResolvedModel` has it.
    """

    model: str
    path: Path
    context_length: int | None
    pool_tokens: int | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    bidirectional: bool = False

    def __call__(self, job: Job, listener: Listener) -> RefusedPrompts:
        """Accepted rows that no engine will answer. What cannot be checked here is said, and left to the engine."""
        nothing = RefusedPrompts(np.zeros(0, np.int64), _no_error)
        if self.context_length is None:
            listener(Note(f"prompts are not checked: the context of {self.model} is not known", warning=True))
            return nothing
        try:
            tokenizer = load_engine_tokenizer(self.path, self.arguments, bidirectional=self.bidirectional)
        except InputMissingError as error:
            listener(Note(f"prompts are not checked: {error}", warning=True))
            return nothing
        listener(PhaseStarted("tokenise", self.model))
        limit = min(self.context_length, self.pool_tokens or self.context_length)
        tokenized = build_prompts(
            job,
            tokenizer,
            # The planner's, so that it finds the prompts in tokens.
            context_length=limit,
            listener=listener,
        )
        prompts = refused_prompts(job, tokenizer, tokenized, limit - _KEPT_FREE)
        return _joined(prompts, self._refused_forms(job, tokenized, listener))

    def _refused_forms(self, job: Job, tokenized: TokenizedJob, listener: Listener) -> RefusedPrompts:
        """Rows whose answer form does not compile; each distinct one is compiled once."""
        failures: dict[int, str] = {}
        rows, schema = tokenized.prompts.row, tokenized.schema
        wanted, first = np.unique(schema, return_index=True)
        found = [
            (int(number), form)
            for number, place in zip(wanted, first, strict=True)
            if number and (form := form_of(job.request(int(rows[place])).body)) is not None
        ]
        if found and self.arguments.get("grammar_backend", "xgrammar") != "xgrammar":
            text = "answer forms are not compiled before the load: the engine's grammar_backend is not xgrammar"
            listener(Note(text, warning=True))
        elif found:
            listener(PhaseStarted("grammars", f"{len(found)} distinct"))
            failures = _failures(found, listener)
        refused = np.isin(schema, np.array(list(failures), dtype=np.uint64))
        reason = dict(zip(rows[refused].tolist(), schema[refused].tolist(), strict=True))

        def error(row: int) -> LineError:
            message = f"the answer's form does not compile: {failures[reason[row]]}"
            return LineError(ErrorCode.SCHEMA_UNSUPPORTED, message, job.request(row).custom_id)

        return RefusedPrompts(rows[refused], error)


def _failures(found: list[tuple[int, Form]], listener: Listener) -> dict[int, str]:
    try:
        messages = list(compile_forms([form for _, form in found]))
    except GrammarsUnavailableError as error:
        listener(Note(f"answer forms are not compiled before the load: {error}", warning=True))
        return {}
    return {number: message for (number, _), message in zip(found, messages, strict=True) if message is not None}


def _joined(first: RefusedPrompts, second: RefusedPrompts) -> RefusedPrompts:
    """Rows of both; where a row is in both, the first one's error."""
    of_first = frozenset(first.rows.tolist())
    rows: NDArray[np.int64] = np.union1d(first.rows, second.rows)
    return RefusedPrompts(rows, lambda row: first.error(row) if row in of_first else second.error(row))


def _no_error(row: int) -> LineError:
    raise ValueError(f"row {row} is not refused")
