"""The ring of steps answers as a look at every step does, whatever was noted and forgotten before."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from blendrun.blend.agenda import empty_agenda, fits_until_its_end, next_end
from blendrun.simulate.agenda import forget_end, forget_overdue, note_end
from blendrun.simulate.base import EXACT


def step_by_step(live: list[tuple[int, int, int]], now: int, held: int, rows: int, pool: int, steps: int) -> bool:
    """live: end, tokens given back, rows of each."""
    for step in range(now + 1, now + steps + 1):
        held += rows
        if held > pool:
            return False
        for end, tokens, ended in live:
            held -= tokens * (end == step)
            rows -= ended * (end == step)
    return held <= pool


def test_the_ring_answers_as_a_look_at_every_step() -> None:
    source = Random(5)
    answers = []
    for _ in range(40):
        longest, pool = source.choice([5, 70, 300]), source.choice([40, 500, 4_000])
        # Records by attribute, as kernels read them.
        agenda: Any = tuple(each.view(np.recarray) for each in empty_agenda(longest))
        state = SimpleNamespace(decoded=0, forgotten=0, reserve=EXACT)
        live: list[tuple[int, int, int]] = []
        for _ in range(60):
            rows = source.randint(1, 3)
            end = state.decoded + source.randint(1, longest + 1)
            entry = (end, rows * (end - state.decoded) + source.randrange(50), rows)
            assert note_end(state, agenda, *entry) == end
            live.append(entry)
            for _ in range(source.choice([0, 1, 3])):
                steps = source.randrange(longest)
                all_rows, held = sum(each[2] for each in live) + 1, source.randrange(pool)
                asked = (state.decoded, held, all_rows, pool, steps)
                answers.append(step_by_step(live, *asked))
                assert bool(fits_until_its_end(agenda, *asked)) == answers[-1]
            if source.random() < 0.3:
                gone = live.pop(source.randrange(len(live)))
                forget_end(state, agenda, *gone)
            if source.random() < 0.5:
                state.decoded += source.choice([1, 1, 2, longest // 3])
                forget_overdue(state, agenda)
                live = [each for each in live if each[0] > state.decoded]
            if not live:
                break
            assert next_end(agenda, state.decoded) == min(each[0] for each in live)
    assert 0.1 < sum(answers) / len(answers) < 0.9, "the cases must be close calls"


def test_ends_beyond_all_that_fits_take_no_room() -> None:
    agenda: Any = tuple(each.view(np.recarray) for each in empty_agenda(100))
    assert len(agenda[0]) == 512
    state = SimpleNamespace(decoded=0, forgotten=0, reserve=EXACT)
    assert note_end(state, agenda, 10_000, 9_999, 1) == -1
    forget_end(state, agenda, -1, 9_999, 1)
    assert not agenda[0].rows.any()
