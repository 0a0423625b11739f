"""What the radix cache drops first, on SGLang's own cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.next_use import forget_marks, replace_lru
from tests.engine.radix_cache import POOL, Cache

pytestmark = pytest.mark.runtime


@pytest.fixture
def cache() -> Iterator[Cache]:
    found = Cache()
    yield found
    assert found.pool.available_size() + found.tree.evictable_size() == POOL, "no token is lost or counted twice"


SHARED = list(range(100, 140))


def own(number: int, tokens: int = 10) -> list[int]:
    return [1000 * (number + 1) + place for place in range(tokens)]


def test_answers_and_tails_go_before_what_is_used_again_though_it_is_older(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(1), own(11), Planned(1, 10, 0))
    cache.evict(40)
    assert cache.holds(SHARED + own(0)) == len(SHARED)
    assert cache.holds(own(1)) == 0
    cache.evict(1)
    assert cache.holds(SHARED) == 0


def test_the_oldest_of_the_useless_goes_first(cache: Cache) -> None:
    for number in range(3):
        cache.serve(own(number), own(10 + number), Planned(number, 10, 0))
    cache.evict(20)
    assert [cache.holds(own(number)) for number in range(3)] == [0, 10, 10]


def test_a_shared_prefix_is_useless_once_its_last_user_is_through(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(1, 10, len(own(5))))
    cache.serve(SHARED + own(1), own(11), Planned(2, 10, 0))
    # 40 tokens of tails and answers, then the prefix, which is the newest of all.
    cache.evict(50 + len(SHARED))
    assert cache.holds(SHARED) == 0
    assert cache.holds(own(5)) == 10


def test_the_last_in_plan_order_decides_in_whatever_order_they_end(cache: Cache) -> None:
    cache.serve(SHARED + own(1), own(11), Planned(2, 10, 0))
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(1, 10, len(own(5))))
    cache.evict(50 + len(SHARED))
    assert cache.holds(SHARED) == 0
    assert cache.holds(own(5)) == 10


def test_a_later_user_makes_it_useful_again(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, 0))
    cache.serve(SHARED + own(1), own(11), Planned(3, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(4, 10, 0))
    cache.evict(60)
    assert cache.holds(SHARED) == len(SHARED)


def test_a_part_of_a_prompt_is_kept_where_only_that_is_used_again(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, 25))
    cache.evict(1)
    cache.evict(1)
    assert cache.holds(SHARED + own(0)) == 25


def test_without_plans_the_cache_drops_the_oldest(cache: Cache) -> None:
    for number in range(3):
        cache.serve(own(number), [], None)
    cache.evict(20)
    assert [cache.holds(own(number)) for number in range(3)] == [0, 0, 10]


def test_another_strategy_of_the_users_stays(cache: Cache) -> None:
    with pytest.raises(TypeError, match="NextUseStrategy was asked for"):
        replace_lru(None, cache.tree.tree_core)


def test_behind_a_plan_its_leftovers_go_after_what_the_next_one_is_done_with(cache: Cache) -> None:
    # Of the plan before: useless, and newer than all else when the next one begins.
    cache.serve(own(3), own(13), Planned(7, 10, 0))
    forget_marks(cache.tree)
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(1), own(11), Planned(1, 10, 0))
    # Tails and answers of the new plan.
    cache.evict(40)
    assert cache.holds(own(3)) == 10
    cache.evict(20)
    assert cache.holds(own(3)) == 0
    assert cache.holds(SHARED) == len(SHARED)


def test_marks_of_the_next_plan_count_on_what_is_there(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(900, 10, len(SHARED)))
    forget_marks(cache.tree)
    cache.serve(own(1), own(11), Planned(0, 10, len(own(1))))
    # The last of the new plan that wants it.
    cache.serve(SHARED + own(2), own(12), Planned(1, 10, 0))
    cache.evict(10 + 20 + len(SHARED))
    assert cache.holds(SHARED) == 0
    assert cache.holds(own(1)) == 10
