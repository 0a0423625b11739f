"""What there is to do, whichever file it came from: prompts in tokens, and the names of their lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import FOR_PLANNING
from blendrun.endpoints.words import prompt_text
from blendrun.errors import EXIT_OK, BlendrunError, InputInvalidError, InputMissingError
from blendrun.events import Listener, PhaseStarted, ignore
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.same import Sameness
from blendrun.jobs.source import Source
from blendrun.jobs.trace import Trace, holds_trace, read_trace
from blendrun.models.card import ModelCard
from blendrun.models.cards import list_aliases, load_card
from blendrun.models.resolve import resolve_model
from blendrun.planner.findings import (
    Finding,
    line_findings,
    model_findings,
    prompt_findings,
    trace_findings,
    worst_first,
)
from blendrun.text import plural
from blendrun.tokens.base import Prompts
from blendrun.tokens.build import build_prompts, render_text
from blendrun.tokens.load import load_engine_tokenizer
from blendrun.tokens.template import RenderError
from blendrun.tokens.tokenizer import PromptTokenizer
from blendrun.tokens.trace import trace_prompts
from blendrun.tree.small import begin_loading_for


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """The model that a plan is for. identity: what history is kept by; the card's alias where no file was needed."""

    name: str
    card: ModelCard
    identity: str
    context_length: int
    tokenizer: PromptTokenizer | None


class Described(Protocol):
    """What a report says of a workload beside its plan; fields as in `Workload`."""

    @property
    def model_name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> Callable[[int], str]: ...
    @property
    def words(self) -> Callable[[int], str]: ...
    @property
    def lines(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def left_out(self) -> int: ...
    @property
    def copies(self) -> int: ...
    @property
    def cached(self) -> int | None: ...
    @property
    def only_read(self) -> int: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """M prompts with where they came from.

    kind: "job" of request lines, or "trace".
    name: what a prompt number is called: its custom_id or trace id.
    lines: all lines that are not blank. refused: lines that are no request, which a run answers with an error line.
    left_out: accepted lines that have no prompt to plan (over the context, empty, not to be rendered).
    copies: accepted lines that ask the same as an earlier one. cached: requests whose answers are kept from earlier
    runs, and are not planned; None where nobody looked.
    only_read: prompts that are read, and nothing is decoded behind them.
    findings: what will go wrong, the worst first. any_logprobs: whether a request asks for log probabilities.
    first_prompt: as the model will see it; None for a trace.
    words: the text of a prompt number, as its request gives it; empty for a trace.
    """

    kind: str
    prompts: Prompts
    model: PlannedModel
    name: Callable[[int], str]
    lines: int
    refused: int
    left_out: int
    findings: tuple[Finding, ...]
    first_prompt: str | None
    copies: int = 0
    cached: int | None = None
    only_read: int = 0
    any_logprobs: bool = False
    words: Callable[[int], str] = lambda _: ""

    @property
    def model_name(self) -> str:
        return self.model.name


@dataclass(frozen=True, slots=True, eq=False)
class DescribedJob:
    """A job that runs. rows: i64 (M,), of the planned prompts. found: of the prompts (`RunPlan.findings`)."""

    job: Job
    model_name: str
    rows: NDArray[np.int64]
    found: tuple[Finding, ...] = ()
    kind: str = "job"
    cached: int | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        return worst_first((*line_findings(self.job), *self.found))

    @property
    def lines(self) -> int:
        return len(self.job)

    @property
    def refused(self) -> int:
        return int(self.job.rejected.sum())

    @property
    def left_out(self) -> int:
        return len(self.job.distinct) - len(self.rows)

    @property
    def copies(self) -> int:
        return int((self.job.copy_of >= 0).sum())

    @property
    def only_read(self) -> int:
        return _only_read(self.job, self.rows)

    @property
    def name(self) -> Callable[[int], str]:
        return lambda number: self.job.request(int(self.rows[number])).custom_id

    @property
    def words(self) -> Callable[[int], str]:
        return _words(self.job, self.rows)


# Those of a job's rows that have an answer from earlier runs.
FindKept = Callable[[Job, NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for: model and tokenizer as given, how many lines, the url of lines without one.

    look: which requests are equal, None where nobody asks; and what finds rows that have an answer from earlier runs.
    adapters: those that the engine will have, None where nobody says. cache: where answers are kept, for messages.
    arguments: the engine's, as far as they are known.
    """

    model: str
    tokenizer: Path | None = None
    limit: int | None = None
    endpoint: str | None = None
    look: Callable[[], tuple[Sameness | None, FindKept | None]] = lambda: (None, None)
    adapters: tuple[str, ...] | None = None
    cache: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class AllKeptError(BlendrunError):
    """There is nothing to plan: a run would take every answer from its cache. Nothing is wrong with that."""

    exit_code = EXIT_OK

    def __init__(self, lines: int, cached: int, cache: Path | None) -> None:
        super().__init__(lines, cached, cache)
        self.lines, self.cached, self.cache = lines, cached, cache

    def __str__(self) -> str:
        requests = plural(self.cached, "distinct request")
        return f"all {requests} of {plural(self.lines, 'line')} have an answer in {self.cache}; a run asks no engine"


def load_workload(sources: Sequence[Source], wanted: Wanted, listener: Listener = ignore) -> Workload:
    """Read a job or a trace, told apart by the first line, and tokenise what is text.

    Raises InputInvalidError (nothing to plan), InputMissingError (no tokenizer, no model), UsageError, AllKeptError.
    """
    names = ", ".join(source.name for source in sources[:3])
    listener(PhaseStarted("index", names))
    if holds_trace(sources):
        return _from_trace(read_trace(sources, limit=wanted.limit), wanted)
    same, kept = wanted.look()
    job = index_jobs(
        sources,
        limit=wanted.limit,
        default_url=wanted.endpoint,
        rules=replace(FOR_PLANNING, adapters=wanted.adapters, base=None),
        same=same,
        listener=listener,
    )
    with job:
        return _from_job(job, wanted, kept, listener, names)


def planned_model(wanted: Wanted, *, text: bool) -> PlannedModel:
    """The card, and for text the tokenizer. A known alias needs no file for a trace, nor with a tokenizer given."""
    tokenizer = None
    if text and wanted.tokenizer:
        tokenizer = load_engine_tokenizer(wanted.tokenizer, {**wanted.arguments, "tokenizer_path": None})
    alias = wanted.model.lower()
    if alias in list_aliases() and (tokenizer or not text) and not Path(wanted.model).exists():
        card = load_card(alias)
        return PlannedModel(wanted.model, card, card.alias, card.context_length, tokenizer)
    try:
        resolved = resolve_model(wanted.model, platform="cpu", weights=False, light=True)
    except InputMissingError as error:
        hint = "; or plan with --tokenizer PATH, a tokenizer.json or its folder" if text else ""
        raise InputMissingError(f"{error}{hint}") from error
    if resolved.card is None:
        raise InputInvalidError(
            f"{resolved.path}/config.json does not give the dimensions that a plan needs; name a model of "
            f"configs/models with --model and its files with --tokenizer {resolved.path}"
        )
    context = resolved.context_length or resolved.card.context_length
    if text and tokenizer is None:
        tokenizer = load_engine_tokenizer(resolved.path, wanted.arguments, bidirectional=resolved.bidirectional)
    return PlannedModel(wanted.model, resolved.card, resolved.identity, context, tokenizer)


def _from_trace(trace: Trace, wanted: Wanted) -> Workload:
    model = planned_model(wanted, text=False)
    prompts = trace_prompts(trace)
    return Workload(
        kind="trace",
        prompts=prompts,
        model=model,
        name=lambda number: trace.id(int(prompts.row[number])),
        lines=len(trace) + len(trace.refused),
        refused=len(trace.refused),
        left_out=0,
        findings=worst_first(trace_findings(trace, prompts, model.name, model.context_length)),
        first_prompt=None,
    )


def _from_job(job: Job, wanted: Wanted, kept: FindKept | None, listener: Listener, names: str) -> Workload:
    if not len(job.accepted):
        first = job.error(0)
        raise InputInvalidError(f"{names} holds no request that can run; its first line: {first.message}")
    listener(PhaseStarted("tokenise", wanted.model))
    model = planned_model(wanted, text=True)
    if model.tokenizer is None:
        raise RuntimeError("a text job has a tokenizer")
    begin_loading_for(len(job.distinct))
    rows, cached = job.distinct, None
    if kept is not None:
        known = kept(job, rows)
        rows, cached = np.setdiff1d(rows, known, assume_unique=True), len(known)
        if not len(rows):
            raise AllKeptError(len(job), cached, wanted.cache)
    tokenized = build_prompts(
        job,
        model.tokenizer,
        context_length=model.context_length,
        rows=rows,
        listener=listener,
    )
    found = tuple(prompt_findings(job, tokenized, model.name, model.context_length))
    if not len(tokenized.prompts):
        raise InputInvalidError(f"no request of {names} can be planned: {'; '.join(each.message for each in found)}")
    numbers = tokenized.prompts.row
    return Workload(
        kind="job",
        prompts=tokenized.prompts,
        model=model,
        name=lambda number: job.request(int(numbers[number])).custom_id,
        lines=len(job),
        refused=int(job.rejected.sum()),
        left_out=len(tokenized.over_context) + len(tokenized.empty) + len(tokenized.failed),
        findings=worst_first(
            (*line_findings(job), *found, *model_findings(job, model.tokenizer, model.card, model.name))
        ),
        first_prompt=_first_prompt(job, int(numbers[0]), model.tokenizer),
        copies=int((job.copy_of >= 0).sum()),
        cached=cached,
        only_read=_only_read(job, numbers),
        any_logprobs=bool(tokenized.logprobs.any()),
        words=_words(job, numbers),
    )


def _only_read(job: Job, rows: NDArray[np.int64]) -> int:
    """How many of the rows decode nothing. rows: i64 (M,), accepted ones."""
    paths = [endpoint.serving for endpoint in ENDPOINTS.values()]
    reads = np.array([path is not None and not path.decodes for path in paths])
    return int(reads[job.endpoint[rows]].sum())


def _words(job: Job, rows: NDArray[np.int64]) -> Callable[[int], str]:
    """The text of a prompt number. rows: i64 (M,), of the prompts."""

    def words(number: int) -> str:
        request = job.request(int(rows[number]))
        return prompt_text(request.endpoint, request.body)

    return words


def _first_prompt(job: Job, row: int, tokenizer: PromptTokenizer) -> str | None:
    try:
        return render_text(job, row, tokenizer)
    except RenderError:
        return None
