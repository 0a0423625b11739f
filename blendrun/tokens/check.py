"""Which prompts of a job no engine will take, and why: known once it is tokenised, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.job import Job
from blendrun.tokens.build import TokenizedJob
from blendrun.tokens.template import RenderError
from blendrun.tokens.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True)
class RefusedPrompts:
    """rows: i64 ascending, lines that are requests but cannot run. error: why one of them cannot, found again."""

    rows: NDArray[np.int64]
    error: Callable[[int], LineError]


def refused_prompts(
    job: Job, tokenizer: PromptTokenizer, tokenized: TokenizedJob, longest_prompt: int
) -> RefusedPrompts:
    """Those over `longest_prompt` tokens, without a token, or not to be rendered. Of estimates none is over it."""
    prompts = tokenized.prompts
    long = prompts.row[(tokenized.longest > longest_prompt) & ~tokenized.estimated]
    over = [row for row in tokenized.over_context.tolist() if not _estimated(job, tokenizer, row)]
    rows = np.concatenate((long, np.array(over, np.int64), tokenized.empty, tokenized.failed))

    def error(row: int) -> LineError:
        request = job.request(row)
        try:
            prompt = tokenizer.render(request.endpoint, request.body, job.reading.rules.media_folder)
        except RenderError as refusal:
            return LineError(ErrorCode.INVALID_REQUEST, str(refusal), request.custom_id)
        except Exception as odd:  # noqa: BLE001  # as in `build_prompts`
            message = f"it cannot be rendered: {type(odd).__name__}: {str(odd)[:300]}"
            return LineError(ErrorCode.INVALID_REQUEST, message, request.custom_id)
        tokens = tokenizer.encode_all([prompt])[0].longest
        if not tokens:
            return LineError(ErrorCode.INVALID_REQUEST, "the prompt has no tokens", request.custom_id)
        message = f"the prompt has {tokens:,} tokens; the context of this model leaves room for {longest_prompt:,}"
        return LineError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, message, request.custom_id)

    return RefusedPrompts(np.unique(rows), error)


def _estimated(job: Job, tokenizer: PromptTokenizer, row: int) -> bool:
    request = job.request(row)
    return tokenizer.render(request.endpoint, request.body, job.reading.rules.media_folder).estimated
