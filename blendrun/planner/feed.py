"""The order of a run: rows of a Job as a plan would feed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import OrderName
from blendrun.cost.capacity import EngineLimits
from blendrun.cost.detect import own_hardware
from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import UsageError
from blendrun.jobs import Job
from blendrun.lengths.estimate import LengthMode
from blendrun.models.resolve import ResolvedModel
from blendrun.planner.plan import cost_structure, make_structure
from blendrun.planner.workload import PlannedModel
from blendrun.tokens import build_prompts, load_tokenizer

Phase = Callable[[str, str], None]
Progress = Callable[[int, int, str], None]
# Where the GPU has no card: the order depends on proportions more than on rates (paper.md 1.6).
_STAND_IN = "h100-sxm"


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """Orders the accepted rows of a job for a model on this machine.

    limits: of the engine, as far as they are known before it starts.
    """

    model: ResolvedModel
    order: OrderName
    limits: EngineLimits
    lengths: LengthMode = LengthMode.AUTO

    def rows(self, job: Job, phase: Phase, progress: Progress, warn: Callable[[str], None]) -> NDArray[np.int64]:
        """All accepted rows in feed order: i64. What cannot be tokenised comes first, so that its error is seen early.

        Raises UsageError, InputMissingError (no tokenizer), OutputUnavailableError (no room for the token store).
        """
        card = self.model.card
        if card is None:
            raise UsageError(f"{self.model.name} has no dimensions to plan with; use --order given or shuffled")
        phase("tokenise", self.model.name)
        context = self.model.context_length or card.context_length
        tokenizer = load_tokenizer(self.model.path)
        tokenized = build_prompts(
            job, tokenizer, context_length=context, progress=lambda done, total: progress(done, total, "requests")
        )
        prompts = tokenized.prompts
        if not len(prompts):
            return job.accepted
        planned = PlannedModel(self.model.name, card, self.model.identity, context, tokenizer)
        structure = make_structure(prompts, planned, self.lengths, phase, warn)
        phase("blend", str(self.order))
        on = machine(load_hardware(_hardware(warn)))
        costed = cost_structure(structure, card, on, limits=self.limits)
        others = np.setdiff1d(job.accepted, prompts.row, assume_unique=True)
        return np.concatenate((others, prompts.row[costed.order(self.order).prompt]))


def _hardware(warn: Callable[[str], None]) -> str:
    try:
        return own_hardware()
    except UsageError as error:
        warn(f"{error}; the order is planned as for {_STAND_IN}")
        return _STAND_IN
