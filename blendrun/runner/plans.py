"""The plans of a run: one for each replica at first, and others where something is left of a replica's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.events import Expected, Listener, Note
from blendrun.jobs.job import Job
from blendrun.names import Purpose
from blendrun.planner.run_plan import Divided, RunPlan
from blendrun.runner.order import divide_rows, plan_rows
from blendrun.runner.settings import RunSettings
from blendrun.simulate.worth import WORTH_TOKENS
from blendrun.store.folder import StateFolder
from blendrun.store.summary import PlanSummary, Stopwatch, Tokens

# Share of the prompt tokens that is worth a word where the cache lacks it.
_WORTH_A_NOTE = 0.05


@dataclass(frozen=True, slots=True)
class Plans:
    """purpose: of the engines. listener: told why an order was chosen, and what is expected of it."""

    settings: RunSettings
    job: Job
    state: StateFolder
    purpose: Purpose
    stopwatch: Stopwatch
    listener: Listener

    def divided(self, rows: NDArray[np.int64]) -> Divided:
        """A plan for each replica."""
        settings = self.settings
        if settings.replicas == 1:
            plan = self.of(rows)
            return Divided(plan, (plan,))
        if settings.divider is None:
            divided = divide_rows(rows, settings.order, settings.overlap, settings.replicas)
            return divided.for_purpose(self.purpose)
        with self.stopwatch.phase("plan"):
            divided = settings.divider(self.job, rows, settings.replicas, self.listener).for_purpose(self.purpose)
        self._tell(divided.whole)
        return divided

    def of(self, rows: NDArray[np.int64]) -> RunPlan:
        """A plan of some rows for one engine."""
        settings = self.settings
        if settings.planner is None or not len(rows):
            return plan_rows(rows, settings.order, settings.overlap).for_purpose(self.purpose)
        with self.stopwatch.phase("plan"):
            plan = settings.planner(self.job, rows, self.listener).for_purpose(self.purpose)
        if settings.replicas == 1:
            self._tell(plan)
        return plan

    def _tell(self, plan: RunPlan) -> None:
        if plan.why:
            self.listener(Note(plan.why))
        self.listener(
            Expected(
                plan.predicted_seconds,
                plan.prompt_tokens,
                plan.predicted_hit_tokens,
                plan.output_tokens,
                plan.decode_share,
                self.settings.replicas,
            )
        )
        if self.settings.keep_plan is not None and plan.simulated is not None:
            with self.stopwatch.phase("plan"):
                self.settings.keep_plan(plan, self.job, self.state.plan)


def cache_note(plan: RunPlan | None, tokens: Tokens) -> str | None:
    """A sentence where less than half of what the plan expected came from the prefix cache; None where all is well.

    tokens: of this invocation's answers.
    """
    if plan is None or not plan.prompt_tokens or not plan.predicted_hit_tokens or not tokens.prompt:
        return None
    planned, found = plan.predicted_hit_tokens / plan.prompt_tokens, tokens.cached / tokens.prompt
    if planned < _WORTH_A_NOTE or found >= planned / 2:
        return None
    return (
        f"{100 * found:.1f} % of the prompt tokens came from the prefix cache, and {100 * planned:.1f} % were planned: "
        f"requests that come in together find nothing yet, and prefixes of under {WORTH_TOKENS} tokens are not waited "
        "for"
    )


def planned_of(plan: RunPlan | None, corrected: float | None) -> PlanSummary | None:
    """What a summary says of the plan; None where there was none. corrected: seconds, by the steps of this run."""
    if plan is None or not plan.planned:
        return None
    predicted, times = plan.predicted_seconds, plan.times
    return PlanSummary(plan.order, plan.overlap, plan.why, predicted, plan.predicted_hit_tokens, corrected, times)
