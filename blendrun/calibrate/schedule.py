"""Which steps the engine takes for a known batch: SGLang's scheduler in short, for requests that all fit its pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from blendrun.calibrate.base import Load, Step


@dataclass(frozen=True, slots=True)
class Policy:
    """How the engine schedules. chunk: most prefill tokens of one step. max_running: requests at once.

    mixed: prefill and decode rows share a step; else prefill goes first, alone.
    late: a slot that a step frees can be used only after the next step (SGLang's overlap scheduler, its default).
    """

    chunk: int
    max_running: int
    mixed: bool = False
    late: bool = True


@dataclass(slots=True)
class _Row:
    """A decoding request. context: tokens its next step reads. left: decode steps to come."""

    context: int
    left: int


def schedule(loads: Sequence[Load], policy: Policy) -> tuple[Step, ...]:
    """The steps for requests handed over in order, all at once.

    The first one is prefilled alone: the engine has begun with it before the second arrives.
    """
    waiting = deque((load, index == 0) for index, load in enumerate(loads))
    filling: deque[list[int]] = deque()  # [prompt, next token, output], the first may be in the middle of a chunk
    rows: list[_Row] = []
    steps: list[Step] = []
    held = 0
    while waiting or filling or rows:
        budget = policy.chunk - (len(rows) if policy.mixed else 0)
        admitted = _admit(waiting, filling, budget, policy.max_running - len(rows) - held)
        prefill, square, done = _prefill(filling, budget)
        decoding = rows if policy.mixed or not prefill else []
        steps.append(Step(prefill, square, admitted, len(decoding), sum(row.context for row in decoding)))
        for row in decoding:
            row.context += 1
            row.left -= 1
        rows += [_Row(prompt + 1, output - 1) for prompt, output in done]
        ended = sum(row.left <= 0 for row in rows)
        rows = [row for row in rows if row.left > 0]
        # With nothing else to run the engine waits for the results, and the slots are free at once.
        held = ended if policy.late and rows else 0
    return tuple(steps)


def _admit(waiting: deque[tuple[Load, bool]], filling: deque[list[int]], budget: int, slots: int) -> int:
    """Take requests until their prefill fills the budget or the slots are used up. Returns how many."""
    slots -= len(filling)
    tokens = sum(prompt - at for prompt, at, _ in filling)
    admitted = 0
    while waiting and slots > 0 and tokens < budget:
        load, alone = waiting.popleft()
        filling.append([load.prompt, load.cached, load.output])
        tokens += load.prompt - load.cached
        slots -= 1
        admitted += 1
        if alone:
            break
    return admitted


def _prefill(filling: deque[list[int]], budget: int) -> tuple[int, float, list[tuple[int, int]]]:
    """One step's tokens, first come first. Returns tokens, sum of b^2 - a^2, (prompt, output) of the requests done."""
    taken, square, done = 0, 0.0, []
    while filling and taken < budget:
        prompt, at, output = filling[0]
        end = min(prompt, at + budget - taken)
        square += float(end) ** 2 - float(at) ** 2
        taken += end - at
        filling[0][1] = end
        if end == prompt:
            filling.popleft()
            done.append((prompt, output))
    return taken, square, done
