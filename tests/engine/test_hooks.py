"""A hook proves itself, and never costs more than itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from blendrun.engine.base import ConstantStep, SchedulerSettings
from blendrun.engine.scheduler import plugin
from blendrun.engine.scheduler.hooks import Hook, features_missing, guarded, install, proof_of

EVERYTHING = SchedulerSettings(
    budget=ConstantStep(64), reserve=True, next_use=True, plan_order=True, step_log="/nowhere/steps.jsonl"
)


def failing_before(original: Callable[..., Any], *args: Any) -> Any:
    raise KeyError("moved")


def failing_behind(original: Callable[..., Any], *args: Any) -> Any:
    original(*args)
    raise KeyError("moved")


class TestGuard:
    @pytest.mark.parametrize("function", [failing_before, failing_behind])
    def test_a_hook_that_raises_gives_way_and_stays_off(self, tmp_path: Path, function: Callable[..., Any]) -> None:
        calls: list[int] = []

        def target(value: int) -> int:
            calls.append(value)
            return value + 1

        hooked = guarded(Hook("budget", "a.b", function, "around"), tmp_path / "proof")
        assert [hooked(target, 1), hooked(target, 2)] == [2, 3]
        assert calls == [1, 2], "SGLang's own code runs once a call"
        assert not (tmp_path / "proof").exists()

    def test_a_proof_that_cannot_be_left_costs_the_hook_and_not_the_engine(self, tmp_path: Path) -> None:
        nowhere = tmp_path / "none" / "proof"
        hooked = guarded(Hook("gate", "a.b", lambda original, value: 10 * original(value), "around"), nowhere)
        assert [hooked(abs, -3), hooked(abs, -4)] == [3, 4], "SGLang's own from then on"

    def test_what_sglang_raises_is_sglangs(self) -> None:
        def target() -> None:
            raise ValueError("of SGLang")

        hooked = guarded(Hook("gate", "a.b", lambda original: original(), "around"), None)
        for _ in range(2):
            with pytest.raises(ValueError, match="of SGLang"):
                hooked(target)

    def test_a_hook_behind_sees_the_result_and_cannot_spoil_it(self) -> None:
        seen = []

        def behind(result: int, value: int) -> None:
            seen.append((result, value))
            raise KeyError("moved")

        hooked = guarded(Hook("gate", "a.b", behind, "after"), None)
        assert [hooked(abs, -3), hooked(abs, -4)] == [3, 4]
        assert seen == [(3, -3)]


class TestProofs:
    def test_what_left_no_proof_is_missing_once(self, tmp_path: Path) -> None:
        hooks = plugin.hooks(EVERYTHING)
        proofs = str(tmp_path / "proofs")
        for number, hook in enumerate(hooks):
            if hook.feature not in ("budget", "next_use"):
                proof_of(proofs, number, hook).touch()
        assert features_missing(hooks, proofs) == ["budget", "next_use"]
        assert not list(tmp_path.iterdir()), "the proofs are taken away"

    def test_what_sends_the_answers_is_not_proved_by_the_first_one(self) -> None:
        late = [hook for hook in plugin.hooks(EVERYTHING) if hook.target.endswith("process_batch_result")]
        assert late and not any(hook.warmed for hook in late)

    def test_each_feature_has_a_sentence(self, tmp_path: Path) -> None:
        said = plugin.notes(EVERYTHING, plugin.missing(EVERYTHING, str(tmp_path / "proofs")))
        assert len(said) == 6
        assert any(sentence.startswith("the step budget did not take: ") for sentence in said)

    def test_what_is_not_asked_for_is_neither_hooked_nor_missed(self, tmp_path: Path) -> None:
        assert plugin.missing(SchedulerSettings(gate=False, dead_ends=False), str(tmp_path / "proofs")) == []
        assert {hook.feature for hook in plugin.hooks(SchedulerSettings())} == {"gate", "dead_end"}

    def test_without_blendrun_nothing_is_registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(plugin.SETTINGS_VARIABLE, raising=False)
        monkeypatch.setattr(plugin, "install", lambda *_: pytest.fail("hooked in"))
        plugin.register()


@pytest.mark.runtime
def test_on_sglangs_registry_a_hook_whose_target_moved_is_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry

    class Scheduler:
        def run_batch(self, rows: int) -> int:
            return rows

    engine = ModuleType("engine_of_another_version")
    engine.Scheduler = Scheduler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, engine.__name__, engine)

    def twice(original: Callable[..., int], scheduler: Scheduler, rows: int) -> int:
        return 2 * original(scheduler, rows)

    path = f"{engine.__name__}.Scheduler"
    hooks = [
        Hook("budget", f"{path}.run_batch", twice, "around"),
        Hook("gate", f"{path}.admit", twice, "around"),
        Hook("step_log", f"{path}.retract", twice, "after", warmed=False),
        Hook("reserve", f"{path}.run_batch", twice, "around", warmed=False),
    ]
    proofs = str(tmp_path / "proofs")
    try:
        install(hooks, proofs)
        HookRegistry.apply_hooks()
        # A proof that cannot be left keeps no other hook from being installed.
        install(hooks, str(tmp_path / "none" / "proofs"))
    finally:
        HookRegistry.reset()
    assert Scheduler().run_batch(3) == 12
    assert features_missing(hooks, proofs) == ["gate", "step_log"]
