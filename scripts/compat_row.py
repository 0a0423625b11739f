"""One row of `scripts/compat.sh`: which features of blendrun work on the SGLang of this environment.

python scripts/compat_row.py [--head] [--log FILE]

Runs the tests of each feature on the real engine, some minutes in all. yes: its tests passed, but for those that say
themselves why they do not go for this version. no: one did not. off: the
version lacks what the feature touches, and a run says so. Exit code 1 where there is a "no".
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

from blendrun.engine import sglang_names

ROOT = Path(__file__).resolve().parents[1]
_SCHEDULER = "tests/runtime/test_scheduler.py::test_"
# Tests by what their names begin with.
START = "starts"
FEATURES = {
    START: (f"{_SCHEDULER}every_request_is_answered",),
    "names": (
        "tests/engine/test_sglang_names.py::TestInstalled::test_a_name",
        "tests/engine/test_resolved.py::test_",
    ),
    "hooks take": (f"{_SCHEDULER}every_hook_took",),
    "answers are SGLang's": (
        f"{_SCHEDULER}greedy_answers",
        "tests/runtime/test_same_answers.py::test_greedy_answers",
    ),
    "requests": ("tests/runtime/test_features.py::test_",),
    "plan order": (f"{_SCHEDULER}first_admission", f"{_SCHEDULER}who_is_sent_back", f"{_SCHEDULER}all_choices"),
    "gate": (f"{_SCHEDULER}siblings",),
    "budget": (f"{_SCHEDULER}no_step",),
    "reserve": (f"{_SCHEDULER}right_estimates",),
    "next_use": ("tests/engine/test_next_use.py::test_",),
    "blended run": ("tests/runtime/test_live.py::test_",),
    "step log": ("tests/runtime/test_scheduler.py::TestStepLog",),
    "tunnel": ("tests/runtime/test_tunnel.py::test_",),
    "decode kernels": ("tests/calibrate/test_kernels.py::test_",),
    "NaN found": ("tests/faults/test_engine.py::test_a_request_whose_logits",),
    "resume after kill": ("tests/runtime/test_kill.py::test_killed_at_random_moments",),
}


class Outcomes:
    """A plug-in of pytest: leaves out tests of no feature, and collects what came of the others."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = defaultdict(set)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        unwanted = [item for item in items if (feature := feature_of(item.nodeid)) is None or is_off(feature)]
        # Without an engine there is no use in waiting for all others.
        items[:] = sorted(
            (item for item in items if item not in unwanted), key=lambda item: feature_of(item.nodeid) != START
        )
        config.hook.pytest_deselected(items=unwanted)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        feature = feature_of(report.nodeid)
        if feature is not None and (report.when == "call" or report.outcome != "passed"):
            self.of[feature].add(report.outcome)

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if "failed" in self.of[START]:
            item.session.shouldstop = "the engine does not start"


def feature_of(test: str) -> str | None:
    return next((feature for feature, names in FEATURES.items() if test.startswith(names)), None)


def is_off(feature: str) -> bool:
    return feature in sglang_names.TOUCHED and not sglang_names.has(feature)


def cell(feature: str, outcomes: set[str]) -> str:
    if is_off(feature):
        return "off"
    return "yes" if outcomes - {"skipped"} == {"passed"} else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", action="store_true", help="Print the head of the table, and run nothing.")
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="What pytest says goes here, at its end.")
    asked = parser.parse_args()
    columns = ["SGLang", "torch", *FEATURES]
    if asked.head:
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        return
    outcomes = Outcomes()
    files = sorted({name.partition("::")[0] for names in FEATURES.values() for name in names})
    with asked.log.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        pytest.main(
            ["-p", "no:cacheprovider", "--rootdir", str(ROOT), *(str(ROOT / file) for file in files)], [outcomes]
        )
    cells = [cell(feature, outcomes.of[feature]) for feature in FEATURES]
    print(f"| {version('sglang')} | {version('torch')} | {' | '.join(cells)} |", flush=True)
    sys.exit("no" in cells)


if __name__ == "__main__":
    main()
