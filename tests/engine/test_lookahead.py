"""The live scheduler reserves by the same rule as the blend and the simulator."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.agenda import add_end, empty_agenda, fits_until_its_end
from blendrun.engine.scheduler.lookahead import Lookahead


def random_ends(source: Random) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ends may be past and may coincide."""
    count = source.randrange(12)
    ahead = np.array([source.randrange(-3, 30) for _ in range(count)], dtype=np.int64)
    return ahead, np.array([source.randrange(40) for _ in range(count)], dtype=np.int64)


def test_the_rule_is_that_of_the_blend() -> None:
    source = Random(3)
    answers = []
    for _ in range(4000):
        ahead, freed = random_ends(source)
        now, steps, rows = source.randrange(100), source.randrange(30), len(ahead) + 1
        # Close enough to the pool that both answers come up.
        room = source.randrange(rows * 15 + 1)
        agenda: Any = tuple(each.view(np.recarray) for each in empty_agenda(30))
        for step, tokens in zip(ahead.tolist(), freed.tolist(), strict=True):
            if step > 0:
                add_end(agenda, now + step, tokens, 1)
        of_blend = fits_until_its_end(agenda, now, 0, rows, room, steps)
        answers.append(Lookahead(ahead, freed).fits(room, steps))
        assert answers[-1] == of_blend, (ahead, freed, room, steps)
    assert 0.2 < sum(answers) / len(answers) < 0.8, "the cases must be close calls"


def test_rows_that_were_admitted_count_from_then_on() -> None:
    source = Random(4)
    for _ in range(200):
        ahead, freed = random_ends(source)
        half = len(ahead) // 2
        grown, whole = Lookahead(ahead[:half], freed[:half]), Lookahead(ahead, freed)
        for steps, tokens in zip(ahead[half:], freed[half:], strict=True):
            grown.fits(source.randrange(200), source.randrange(30))
            grown.add(int(steps), int(tokens))
        assert len(grown) == len(whole) == len(ahead)
        for _ in range(10):
            room, steps = source.randrange(200), source.randrange(30)
            assert grown.fits(room, steps) == whole.fits(room, steps)


def test_what_frees_its_tokens_in_time_makes_room() -> None:
    # One row runs 10 steps and gives back 30 tokens then. A newcomer of 20 steps needs 20 tokens of its own.
    ahead = Lookahead(np.array([10]), np.array([30]))
    assert ahead.fits(20, 20), "20 tokens until the end, then 30 more"
    assert not ahead.fits(19, 20), "both grow by 10 tokens before anything is given back"
    assert not Lookahead(np.array([10]), np.array([0])).fits(29, 20)
