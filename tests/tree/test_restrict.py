"""The tree of some prompts is the one that is built of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendrun.tree.build import build_tree
from blendrun.tree.restrict import restrict
from tests.tree.prompt_lists import prompts_of, same_arrays, unit_lists


@given(unit_lists, st.data())
def test_as_if_built_of_them(units: list[list[int]], data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(units) - 1)) if units else st.just(set())))
    found = restrict(build_tree(prompts_of(units)), np.array(kept, dtype=np.int64))
    assert same_arrays(found, build_tree(prompts_of([units[number] for number in kept])))
