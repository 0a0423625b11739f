"""The tree of some prompts is the one that is built of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_lists import prompts_of, same_arrays, unit_lists

from blendrun.tree import build_tree
from blendrun.tree.restrict import restrict


@given(unit_lists, st.data())
@settings(deadline=None, max_examples=300)
def test_as_if_built_of_them(units: list[list[int]], data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(units) - 1)) if units else st.just(set())))
    found = restrict(build_tree(prompts_of(units)), np.array(kept, dtype=np.int64))
    assert same_arrays(found, build_tree(prompts_of([units[number] for number in kept])))
