"""Do the tests notice? Small faults are put into a copy of the code, one at a time, and its tests run each time.

    .venv/bin/uv pip install -c constraints.txt -e '.[mutants]'
    python scripts/mutants.py [tree blend lengths journal work_stealing scheduler] [--minutes 30] [--sample 100]

The faults are cosmic-ray's: another operator, comparison, number or constant, a loop that does not run, a decorator
less. Of each target a random sample is tried, the same one for a seed, until the time is up. Left out: what changes an
annotation only, and the decorators of compiled loops. A fault that no test notices is printed as a diff, but for those
that scripts/mutants-explained.txt gives a reason for (they change nothing that is promised). Exit code 1 where others
survive.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = ROOT / "scripts" / "mutants-explained.txt"
_HOOKS = ("dead_end", "estimates", "hooks", "log_file", "lookahead", "planned", "step_budget", "next_use", "reserve")
_SCHEDULER = " ".join(f"tests/engine/test_{name}.py" for name in _HOOKS) + " tests/runtime/test_scheduler.py"
# Of each target: its files, and the tests that are to notice, those that are quick first.
TARGETS = {
    "tree": ("blendrun/tree/*.py", "--ignore tests/tree/test_within_bounds.py tests/tree tests/jobs/test_trace.py"),
    "blend": ("blendrun/blend/*.py", "tests/blend tests/planner/test_feeder.py tests/planner/test_parts.py"),
    "lengths": ("blendrun/lengths/*.py", "tests/lengths tests/planner/test_learner.py"),
    "journal": ("blendrun/store/journal.py", "tests/runner/test_journal.py tests/faults/test_state.py"),
    "work_stealing": ("blendrun/runner/work_stealing.py", "tests/runner/test_replicas.py"),
    "scheduler": ("blendrun/engine/scheduler/*.py", _SCHEDULER),
}
# A mutant that makes a test loop for ever is noticed, too.
_TIMES, _MORE_S = 5.0, 30.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault. line: of the file, from 1. before, after: that line without blanks at its ends."""

    target: str
    file: str
    operator: str
    occurrence: int
    line: int
    outcome: str = ""
    seconds: float = 0.0
    before: str = ""
    after: str = ""

    @property
    def key(self) -> str:
        return f"{self.file} | {self.before} | {self.after}"


def mutants_of(target: str) -> Iterator[Mutant]:
    """All faults that cosmic-ray can make in a target's files."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    for path in sorted(ROOT.glob(TARGETS[target][0])):
        nodes, unseen = list(ast_nodes(get_ast_from_path(path))), _unseen(path)
        for name in operator_names():
            if (operator := get_operator(name)).arguments():
                continue
            made = operator()
            places = (start for node in nodes for start, _ in made.mutation_positions(node))
            for occurrence, (line, column) in enumerate(places):
                if not any(first <= (line, column) < last for first, last in unseen):
                    yield Mutant(target, str(path.relative_to(ROOT)), name, occurrence, line)


def _unseen(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a fault changes nothing that runs: annotations, and decorators of loops that run uncompiled as well."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for decorator in getattr(node, "decorator_list", ()):
            name = decorator.func if isinstance(decorator, ast.Call) else decorator
            parts += [decorator] if isinstance(name, ast.Name) and name.id in ("compiled", "inlined") else []
        for part in parts:
            if part is not None and part.end_lineno is not None and part.end_col_offset is not None:
                # From the @ on.
                found.append(((part.lineno, part.col_offset - 1), (part.end_lineno, part.end_col_offset)))
    return found


class Copy:
    """A copy of the project, which faults are put into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.quiet_s: dict[str, float] = {}

    def command(self, target: str) -> str:
        """What runs the target's tests on this copy."""
        tests = f"{shlex.quote(sys.executable)} -m pytest -x -q -p no:cacheprovider {TARGETS[target][1]}"
        folder = shlex.quote(str(self.folder))
        loops = shlex.quote(str(self.folder / "build" / "loops"))
        # With a check of every index: memory next to an array may well hold what a faulty loop hopes for.
        checked = f"NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR={loops}"
        return f"sh -c {shlex.quote(f'cd {folder} && {checked} PYTHONPATH={folder} exec {tests}')}"

    def prepare(self, target: str) -> None:
        """Run the tests without a fault: they must pass. Twice, as the first run compiles loops. Raises SystemExit."""
        for _ in range(2):
            begun = time.monotonic()
            done = subprocess.run(shlex.split(self.command(target)), capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"the tests of {target} do not pass without a fault:\n{done.stdout[-3000:]}")
            self.quiet_s[target] = time.monotonic() - begun

    def tried(self, mutant: Mutant) -> Mutant:
        """The mutant with its outcome: killed, survived, or incompetent (it could not be made)."""
        from cosmic_ray.mutating import mutate_and_test
        from cosmic_ray.work_item import MutationSpec

        begun = time.monotonic()
        spec = MutationSpec(self.folder / mutant.file, mutant.operator, mutant.occurrence, (1, 0), (1, 1))
        limit = _TIMES * self.quiet_s[mutant.target] + _MORE_S
        result = mutate_and_test([spec], self.command(mutant.target), limit)
        before, after = _changed(result.diff or "")
        outcome = str(result.test_outcome.value) if result.test_outcome else "incompetent"
        seconds = round(time.monotonic() - begun, 1)
        return replace(mutant, outcome=outcome, seconds=seconds, before=before, after=after)


def _changed(diff: str) -> tuple[str, str]:
    """The lines that a diff takes away and adds, without the blanks around them."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    return tuple(" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")  # type: ignore[return-value]


def explained() -> set[str]:
    """Keys of the faults that need not be noticed; each stands below the reason (a line that begins with #)."""
    lines = EXPLAINED.read_text(encoding="utf-8").splitlines() if EXPLAINED.exists() else []
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def sampled(targets: list[str], count: int, seed: int) -> list[Mutant]:
    """`count` of each target in random order, targets in turns, so that a cut run has tried some of each."""
    drawn = []
    for target in targets:
        every = list(mutants_of(target))
        random.Random(seed).shuffle(every)
        drawn += list(enumerate(every[:count]))
        print(f"{target}: {len(every):,} faults, {min(count, len(every))} drawn", flush=True)
    return [mutant for _, mutant in sorted(drawn, key=lambda each: each[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sample", type=int, default=100, help="faults of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--copies", type=int, default=2, help="tests that run side by side")
    parser.add_argument("--out", type=Path, help="a JSON line a fault")
    asked = parser.parse_args()
    targets = asked.targets or list(TARGETS)
    if unknown := [target for target in targets if target not in TARGETS]:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(TARGETS)}")
    mutants = sampled(targets, asked.sample, asked.seed)
    end = time.monotonic() + 60 * asked.minutes
    with TemporaryDirectory(prefix="blendrun-mutants-") as folder, ThreadPoolExecutor(asked.copies) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()

        def prepared(number: int) -> None:
            copy = Copy(Path(folder, str(number)))
            for target in targets:
                copy.prepare(target)
            copies.put(copy)

        def tried(mutant: Mutant) -> Mutant | None:
            if time.monotonic() > end:
                return None
            copy = copies.get()
            try:
                return _told(copy.tried(mutant), asked.out)
            finally:
                copies.put(copy)

        list(pool.map(prepared, range(asked.copies)))
        done = [mutant for mutant in pool.map(tried, mutants) if mutant is not None]
    sys.exit(report(targets, done))


def _told(mutant: Mutant, out: Path | None) -> Mutant:
    if mutant.outcome == "survived":
        print(f"survived: {mutant.file}:{mutant.line}\n  - {mutant.before}\n  + {mutant.after}", flush=True)
    if out is not None:
        fields = {name: getattr(mutant, name) for name in Mutant.__slots__}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + os.linesep)
    return mutant


def report(targets: list[str], done: list[Mutant]) -> int:
    """Print a row a target; 1 where a fault survived that has no explanation."""
    reasons, left = explained(), 0
    print("\n| target | tried | noticed | explained | survived | score |\n|---|---|---|---|---|---|")
    for target in targets:
        mine = [mutant for mutant in done if mutant.target == target and mutant.outcome in ("killed", "survived")]
        killed = sum(mutant.outcome == "killed" for mutant in mine)
        known = sum(mutant.outcome == "survived" and mutant.key in reasons for mutant in mine)
        survived = len(mine) - killed - known
        score = f"{100 * killed / max(len(mine) - known, 1):.0f} %"
        print(f"| {target} | {len(mine)} | {killed} | {known} | {survived} | {score} |")
        left += survived
    return int(left > 0)


if __name__ == "__main__":
    main()
