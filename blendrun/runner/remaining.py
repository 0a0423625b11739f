"""What is behind an engine and before it, in tokens and seconds: the figures that the time left comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.events import Work
from blendrun.learned.ahead import LEVELS, MOST_RUNNING, MOST_WAITING, Ahead, seconds_ahead
from blendrun.lengths.base import Lengths, LengthSource
from blendrun.planner.feeder import PlanFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.flight import Flight
from blendrun.store.steps import StepTail

Floats = NDArray[np.float64]


def work_of(source: RunPlan, flights: Collection[Flight], steps: StepTail | None, done: Sequence[float]) -> Work | None:
    """What is done and left; None where nothing is expected of what is fed.

    source: the plan that is being fed. steps: the engine's log. done: prompt and output tokens of what is answered.
    """
    if (to_come := source.feeder.to_come) is None:
        return None
    behind, left = [float(tokens) for tokens in done], list(to_come)
    running = steps.answered(each.queued for each in flights) if steps else {}
    for flight in flights:
        made = running.get(flight.queued.prompt)
        (left if made is None else behind)[0] += flight.queued.tokens
        behind[1] += made or 0
        # Whatever was expected, an answer that has not ended gets one more token.
        left[1] += max(_expected(flight) - (made or 0), 1)
    ahead = in_flight = None
    if steps is not None and isinstance(source.feeder, PlanFeeder) and len(flights) <= MOST_RUNNING:
        ahead = _seconds(source, source.feeder, flights, running, steps, whole=True)
        last = ahead is not None and not source.feeder.unfed
        in_flight = ahead if last else _seconds(source, source.feeder, flights, running, steps, whole=False)
    return Work(behind[0], behind[1], left[0], left[1], ahead, in_flight)


def _expected(flight: Flight) -> int:
    """Output tokens, of each choice, by what is known now."""
    learning, prompt = flight.plan.learning, flight.queued.prompt
    return learning.feeder.expected(prompt) if learning and prompt >= 0 else flight.queued.output


def _seconds(
    source: RunPlan,
    feeder: PlanFeeder,
    flights: Collection[Flight],
    running: Mapping[int, int],
    steps: StepTail,
    *,
    whole: bool,
) -> tuple[float, float] | None:
    """Least and most seconds until all that is left is answered, or, not `whole`, all that the engine has."""
    to_come = feeder.next_up(MOST_WAITING) if whole else np.zeros(0, np.int64)
    if to_come is None:
        return None
    known = [each for each in flights if each.queued.prompt >= 0]
    found = _tables(known, running)
    lengths = feeder.lengths_of(to_come)
    waiting = np.concatenate((found.waiting, _table(lengths)))
    slots = max(steps.most_rows, len(found.running))
    if (pace := steps.pace(min(slots, len(found.running) + len(waiting)))) is None:
        return None
    fresh = _fresh(source, known, running, steps, feeder.tokens_of(to_come))
    guessed = found.guessed or _guessed(lengths)
    return seconds_ahead(Ahead(found.made, found.running, waiting, fresh, slots, pace, guessed))


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Of what an engine has: as in `Ahead`."""

    made: Floats
    running: Floats
    waiting: Floats
    guessed: bool


def _tables(known: Sequence[Flight], running: Mapping[int, int]) -> _Tables:
    none = np.empty((0, len(LEVELS)))
    made, now, later, guessed = [np.empty(0)], [none], [none], False
    # One that went on with what others left has requests of several plans.
    for own in {id(each.plan.feeder): each.plan.feeder for each in known}.values():
        if not isinstance(own, PlanFeeder):
            continue
        mine = [each.queued.prompt for each in known if each.plan.feeder is own]
        begun = np.array([prompt for prompt in mine if prompt in running], np.int64)
        queued = np.array([prompt for prompt in mine if prompt not in running], np.int64)
        made.append(own.for_choices(begun, np.array([running[each] for each in begun.tolist()], np.float64)))
        for prompts, tables in ((begun, now), (queued, later)):
            lengths = own.lengths_of(prompts)
            tables.append(_table(lengths))
            guessed = guessed or _guessed(lengths)
    return _Tables(np.concatenate(made), np.concatenate(now), np.concatenate(later), guessed)


def _guessed(lengths: Lengths) -> bool:
    """Whether nothing was ever seen of some of them."""
    return bool((lengths.source == LengthSource.PRIOR).any())


def _fresh(
    source: RunPlan, known: Sequence[Flight], running: Mapping[int, int], steps: StepTail, to_come: float
) -> tuple[float, float]:
    """Prompt tokens that are still to be computed: least by the plan's hits, most by those that came so far.

    to_come: tokens of the prompts that the engine does not have yet.
    """
    queued = [each for each in known if each.queued.prompt not in running]
    tokens = sum(each.queued.tokens for each in queued)
    planned = sum(each.queued.tokens - each.queued.hit for each in queued)
    shared = 1.0
    if source.prompt_tokens and source.predicted_hit_tokens is not None:
        shared = 1.0 - source.predicted_hit_tokens / source.prompt_tokens
    under_way = max(sum(each.queued.tokens - each.queued.hit for each in known) - steps.computed, 0)
    least = max(min(planned, tokens), 0) + shared * to_come
    return least, max(tokens + to_come, under_way, least)


def _table(lengths: Lengths) -> Floats:
    """Lengths at `LEVELS`: f64 (n, 29), the last one the most that it can be."""
    if not len(lengths):
        return np.empty((0, len(LEVELS)))
    inside = [lengths.quantile(np.full(len(lengths), level)) for level in LEVELS[1:-1]]
    most = np.where(lengths.certain, lengths.mean, lengths.bound)
    return np.maximum.accumulate(np.stack([np.minimum(1.0, inside[0]), *inside, most], axis=1), axis=1)
