"""The live scheduler reserves by the same rule as the blend and the simulator."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from blendrun.blend import scan
from blendrun.engine.scheduler.lookahead import Lookahead, fits_until_its_end


def random_case(source: Random) -> dict[str, Any]:
    """What runs, close enough to the pool that both answers come up. Ends may be past and may coincide."""
    count = source.randrange(12)
    ahead = np.array(sorted(float(source.randrange(-3, 30)) for _ in range(count)))
    rows = np.array([float(source.randrange(1, 4)) for _ in range(count)])
    freed = np.array([float(source.randrange(40)) for _ in range(count)])
    all_rows = float(rows.sum() + 1)
    held = float(freed.sum() + source.randrange(60))
    pool = held + source.randrange(int(all_rows) * 15 + 1)
    return {
        "ahead": ahead, "freed": freed, "rows": rows, "held": held, "all_rows": all_rows, "pool": float(pool),
        "steps": float(source.randrange(30)),
    }  # fmt: skip


def test_the_rule_is_that_of_the_blend() -> None:
    source = Random(3)
    answers = []
    for _ in range(4000):
        case = random_case(source)
        now = float(source.randrange(100))
        of_blend = scan.fits_until_its_end(
            case["ahead"] + now, case["freed"], case["rows"], 0, len(case["ahead"]), now,
            case["held"], case["all_rows"], case["pool"], case["steps"],
        )  # fmt: skip
        answers.append(fits_until_its_end(**case))
        assert answers[-1] == of_blend, case
    assert 0.2 < sum(answers) / len(answers) < 0.8, "the cases must be close calls"


def test_rows_that_were_admitted_count_from_then_on() -> None:
    source = Random(4)
    for _ in range(200):
        ends = [(float(source.randrange(1, 30)), float(source.randrange(40))) for _ in range(source.randrange(10))]
        grown = Lookahead(list(ends[: len(ends) // 2]))
        for steps, freed in ends[len(ends) // 2 :]:
            grown.add(steps, freed)
        whole = Lookahead(list(ends))
        assert len(grown) == len(whole) == len(ends)
        for _ in range(10):
            room, steps = float(source.randrange(200)), float(source.randrange(30))
            assert grown.fits(room, steps) == whole.fits(room, steps)


def test_what_frees_its_tokens_in_time_makes_room() -> None:
    # One row runs 10 steps and gives back 30 tokens then. A newcomer of 20 steps needs 20 tokens of its own.
    ahead = Lookahead([(10.0, 30.0)])
    assert ahead.fits(20.0, 20.0), "20 tokens until the end, then 30 more"
    assert not ahead.fits(19.0, 20.0), "both grow by 10 tokens before anything is given back"
    assert not Lookahead([(10.0, 0.0)]).fits(29.0, 20.0)
