"""What of a job will go wrong, or probably will, said before anything runs: the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from blendrun.jobs.job import Job
from blendrun.jobs.trace import Trace
from blendrun.lengths.base import Lengths
from blendrun.models.card import ModelCard
from blendrun.text import plural
from blendrun.tokens.base import Prompts
from blendrun.tokens.build import TokenizedJob
from blendrun.tokens.template import reads_tools
from blendrun.tokens.tokenizer import PromptTokenizer

# Distinct answer forms beyond which compiling their grammars is worth a word.
_MANY_SCHEMAS = 32
# Embeddings are padded to a round number; a vocabulary smaller than this share of them is another one.
_PADDING = 0.9
# An answer expected to reach this share of its bound would probably go on.
_NEAR_BOUND = 0.9
_SHORTEST_BOUND = 16


class Severity(StrEnum):
    """fails: lines that a run answers with an error. risk: answers that may be worth little. note: good to know."""

    FAILS = "fails"
    RISK = "risk"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. code: its kind, for programs. count: of lines or requests; 0 where it is about all of them.
    first: the first of them ("jobs.jsonl, line 4"), null where nobody knows. message: for people, all in one."""

    severity: Severity
    code: str
    count: int
    first: str | None
    message: str


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that fail, then risks, then notes, each in the order given."""
    rank = list(Severity)
    return tuple(sorted(findings, key=lambda each: rank.index(each.severity)))


def will_fail(findings: Iterable[Finding]) -> int:
    """Lines that a run will answer with an error, as far as is known."""
    return sum(each.count for each in findings if each.severity is Severity.FAILS)


def line_findings(job: Job) -> Iterator[Finding]:
    """Yields what the lines alone tell: those that are no request, and second ones of an id."""
    again = job.duplicate_of >= 0
    if (refused := np.flatnonzero(job.rejected & ~again)).size:
        first, is_are = _line(job, int(refused[0])), plural(refused.size, "line is", "lines are")
        message = f"{is_are} no request (first: {first}: {job.error(int(refused[0])).message})"
        yield Finding(Severity.FAILS, "no_request", refused.size, first, message)
    if (twice := np.flatnonzero(again)).size:
        first, has_have = _line(job, int(twice[0])), plural(twice.size, "line has", "lines have")
        message = f"{has_have} a custom_id that an earlier one has (first: {first})"
        yield Finding(Severity.FAILS, "duplicate_id", twice.size, first, message)


def prompt_findings(job: Job, tokenized: TokenizedJob, model: str, context_length: int) -> Iterator[Finding]:
    """Yields what the prompts tell: those that are too long, empty, or cannot be rendered. model: its name."""
    kinds = (
        ("over_context", tokenized.over_context, f"over the context of {model}, {context_length:,} tokens with answer"),
        ("no_token", tokenized.empty, "with no token"),
        ("not_rendered", tokenized.failed, "that cannot be rendered"),
    )
    for code, rows, what in kinds:
        if not rows.size:
            continue
        first = _line(job, int(rows[0]))
        reason = f": {tokenized.messages[0][1]}" if code == "not_rendered" and tokenized.messages else ""
        message = f"{plural(rows.size, 'prompt')} {what} (first: {first}{reason})"
        yield Finding(Severity.FAILS, code, rows.size, first, message)
    if estimated := int(tokenized.estimated.sum()):
        message = f"{plural(estimated, 'request carries', 'requests carry')} media, whose tokens are estimated"
        yield Finding(Severity.NOTE, "media_estimated", estimated, None, message)
    if (schemas := len(np.unique(tokenized.schema[tokenized.schema != 0]))) > _MANY_SCHEMAS:
        message = f"{schemas:,} different answer schemas; the engine compiles each"
        yield Finding(Severity.NOTE, "many_schemas", schemas, None, message)


def model_findings(job: Job, tokenizer: PromptTokenizer, card: ModelCard, model: str) -> Iterator[Finding]:
    """Yields where tokenizer, template and model do not go together. model: its name."""
    template = tokenizer.template
    if job.with_tools and template is not None and not reads_tools(template.source):
        yield Finding(Severity.RISK, "tools_not_shown", job.with_tools, None, tools_not_shown(job.with_tools, model))
    words = tokenizer.encoder.vocabulary
    if words > card.vocab_size or words < _PADDING * card.vocab_size:
        message = (
            f"the tokenizer is not that of {model}: it has {words:,} tokens and the model {card.vocab_size:,}; "
            "counts of tokens, and chat prompts, are those of another model"
        )
        yield Finding(Severity.RISK, "other_tokenizer", 0, None, message)


def tools_not_shown(lines: int, model: str) -> str:
    """The sentence for lines whose tools the model will never see."""
    return (
        f"{plural(lines, 'line brings', 'lines bring')} `tools`, and the chat template of {model} shows no tools to it"
    )


def answer_findings(prompts: Prompts, lengths: Lengths) -> Iterator[Finding]:
    """Yields where answers will probably be cut by their bound."""
    # Expected lengths stop at the bound, so a mean this near to it says that many answers would go on.
    cut = (lengths.mean >= _NEAR_BOUND * lengths.bound) & (lengths.bound > _SHORTEST_BOUND) & ~prompts.known
    if count := int(cut.sum()):
        lowest = int(lengths.bound[cut].min())
        message = (
            f"{plural(count, 'answer')} will probably be cut short, by max_tokens or the end of the context "
            f"(least room: {lowest:,} tokens)"
        )
        yield Finding(Severity.RISK, "cut_short", count, None, message)


def trace_findings(trace: Trace, prompts: Prompts, model: str, context_length: int) -> Iterator[Finding]:
    """Yields what a trace does not tell, or has too much of. model: its name."""
    if trace.refused:
        first = f"{trace.sources[trace.refused[0].source].name}, line {trace.refused[0].line_number}"
        count = len(trace.refused)
        message = f"{plural(count, 'line is', 'lines are')} no request of a trace (first: {first})"
        yield Finding(Severity.FAILS, "no_request", count, first, message)
    if over := int((prompts.prompt_tokens.astype(np.int64) + prompts.reference > context_length).sum()):
        message = (
            f"{plural(over, 'request')} of the trace longer than the context of {model} ({context_length:,} tokens), "
            "planned as they are"
        )
        yield Finding(Severity.RISK, "over_context", over, None, message)
    if not len(trace.blocks):
        message = "the trace has no hash_ids: what prompts share is not known, and planned as nothing"
        yield Finding(Severity.NOTE, "sharing_unknown", 0, None, message)


def _line(job: Job, row: int) -> str:
    name, line = job.where(row)
    return f"{name}, line {line}"
