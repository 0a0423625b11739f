"""What a plan is asked about beyond itself: drafts and a cache in host memory, with what would turn them on."""

from __future__ import annotations

from typing import Any

from blendrun.engine.extras import draft_arguments, host_arguments
from blendrun.errors import UsageError
from blendrun.planner.plan import Plan
from blendrun.planner.what_if import cache_in_host_memory, drafts_at_the_tail, drafts_in_every_step
from blendrun.report.schemas.what_if import WhatIfRow, what_if_row
from blendrun.simulate.base import Drafts

_NO_TAIL = "SGLang's n-gram drafts have no tail: they are there in every step (EAGLE's adapt, and need a draft model)"


def parse_drafts(text: str | None) -> Drafts | None:
    """ "4:0.6": four drafts a row and step, each right with a chance of 0.6. Raises UsageError."""
    if text is None:
        return None
    count, _, acceptance = text.partition(":")
    try:
        return Drafts(int(count), float(acceptance))
    except ValueError as error:
        raise UsageError(f"--drafts takes COUNT:ACCEPTANCE, for example 4:0.6, not {text!r}") from error


def what_ifs(plan: Plan, drafts: str | None, host_memory: float | None, given: dict[str, Any]) -> tuple[WhatIfRow, ...]:
    """A row for each thing asked about.

    drafts: as of `parse_drafts`. host_memory: GB a device. given: engine arguments.
    Raises UsageError where the card does not say how fast the host is.
    """
    guessed = parse_drafts(drafts)
    found: list[WhatIfRow] = []
    if guessed is not None:
        found.append(what_if_row(drafts_at_the_tail(plan, guessed.count, guessed.acceptance), _NO_TAIL))
        always = drafts_in_every_step(plan, guessed.count, guessed.acceptance)
        if always is not None:
            rows = plan.costed.limits.max_running
            found.append(what_if_row(always, draft_arguments("exclusive", given, guessed.count, rows)))
    if host_memory is not None:
        hosted = cache_in_host_memory(plan, host_memory)
        platform = plan.costed.machine.card.kind
        found.append(what_if_row(hosted, host_arguments(platform, given, host_memory)))
    return tuple(found)
