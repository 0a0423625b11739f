"""Names of SGLang's are where they are said to be, in the version that is installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from blendrun.engine import older, seeds, sglang_names
from blendrun.engine.cpu import older as older_cpu
from blendrun.engine.scheduler import rows
from blendrun.engine.sglang_names import FIRST, LAST, SINCE, TOUCHED

EVERY = sorted({name for names in TOUCHED.values() for name in names})


def pretend(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(sglang_names, "installed", lambda: version)


@pytest.mark.runtime
class TestInstalled:
    @pytest.mark.parametrize("name", EVERY)
    def test_a_name_is_there_in_the_versions_that_are_said_to_have_it(self, name: str) -> None:
        assert sglang_names.is_there(name) is sglang_names.reaches(SINCE.get(name, FIRST))

    def test_an_untried_version_that_has_all_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, "0.6.0.dev3+g1234567")
        assert sglang_names.untried() == (
            f"blendrun was tried with SGLang {FIRST} to {LAST}, and this is 0.6.0.dev3+g1234567: "
            "all that is touched of it is there"
        )

    def test_an_untried_version_names_what_lacks_something(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, "0.6.0")
        monkeypatch.setitem(TOUCHED, "requests", (f"{sglang_names.ENGINE}.no_longer_there",))
        monkeypatch.setitem(TOUCHED, "schemas", ("sglang.srt.no_longer_there.at_all",))
        said = sglang_names.untried()
        assert said is not None
        assert said.endswith("these find no longer what they touch: requests, schemas")

    def test_a_tools_schema_binds_by_sglangs_own_word_or_not_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        strictest = sglang_names.strictest_tools.__wrapped__
        assert strictest() == ("SGLANG_TOOL_STRICT_LEVEL", "2")
        monkeypatch.setattr(sglang_names, "TOOL_LEVELS", "sglang.srt.environ.no_longer_there")
        assert strictest() is None

    def test_seeds_are_honoured_only_where_all_they_take_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert seeds.can_be_honoured()
        monkeypatch.setattr(seeds, "SEEDED_DRAW", "sglang.srt.layers.sampler.no_longer_there")
        assert not seeds.can_be_honoured()


@pytest.mark.parametrize("version", [FIRST, LAST, f"{LAST}.post1", None])
def test_of_a_version_that_was_tried_nothing_is_said(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    pretend(monkeypatch, version)
    assert sglang_names.untried() is None


@pytest.mark.parametrize(
    ("found", "needed", "reached"),
    [
        ("0.5.22", "0.5.22", True),
        ("0.5.9", "0.5.22", False),
        ("0.5.22.post1", "0.5.22", True),
        ("0.5.22.dev7+g1a2b3c4", "0.5.22", True),
        ("0.6", "0.5.22", True),
        (None, "0.5.22", True),
    ],
)
def test_versions_are_compared_by_their_numbers(
    monkeypatch: pytest.MonkeyPatch, found: str | None, needed: str, reached: bool
) -> None:
    pretend(monkeypatch, found)
    assert sglang_names.reaches(needed) is reached


def test_what_older_versions_call_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "0.5.21")
    assert sglang_names.nan_check() == "SGLANG_ENABLE_ASYNC_ASSERT"
    assert not sglang_names.tells_dead_ends()
    request = SimpleNamespace(prefix_indices=[5, 6, 7], extend_range=SimpleNamespace(start=3, end=9))
    assert (older.prefix_len(request), older.extend_end(request)) == (3, 9)
    assert older.slot(SimpleNamespace(req_pool_idx=4)) == 4
    adder = SimpleNamespace(rem_total_token_offset=50, cur_rem_token_offset=20, cur_rem_tokens=100)
    budget = older.memory_budget(adder)
    budget.total_offset = budget.current_offset + 5
    assert (adder.rem_total_token_offset, budget.remaining_current) == (25, 100)


@pytest.mark.runtime
@pytest.mark.parametrize(("version", "steps"), [("0.5.21", 1), ("0.5.22", 0)])
def test_rows_of_older_versions_end_a_step_late(monkeypatch: pytest.MonkeyPatch, version: str, steps: int) -> None:
    pretend(monkeypatch, version)
    found = older.steps_behind_end.__wrapped__()
    assert found == steps
    monkeypatch.setattr(rows, "steps_behind_end", lambda: found)
    params = SimpleNamespace(max_new_tokens=10, custom_params=None)
    request = SimpleNamespace(sampling_params=params, output_ids=[7, 7], origin_input_ids=[5] * 6)
    left, freed = rows.Rows().ends([request])
    # A row that answers holds one token less than it has answered: at its end 6 + 9.
    assert (left.tolist(), freed.tolist()) == ([8 + steps], [15 + steps])
    assert rows.steps_left(request) == 8 + steps


def test_pages_of_several_tokens_take_a_newer_version() -> None:
    with pytest.raises(ValueError, match=r"page_size=16 on the CPU takes SGLang 0\.5\.22"):
        older_cpu.allocator(100, page_size=16)
