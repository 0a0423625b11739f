"""Files that a plan may be asked for: its order, its arrays, a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile, is_zipfile

import numpy as np

from blendrun.errors import UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.planner.plan import Plan
from blendrun.planner.workload import Workload
from blendrun.remote.address import local_paths
from blendrun.report.page.page import is_page, make_page, refuse_without_scripts
from blendrun.report.page.subject import plan_subject
from blendrun.report.schemas.plan import PlanReport, plan_json
from blendrun.store.guard import Made, Target


class Asked(Protocol):
    """What is asked for; fields as in `PlanOptions`."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def order_out(self) -> Path | None: ...
    @property
    def save(self) -> Path | None: ...
    @property
    def report(self) -> Path | None: ...
    @property
    def overwrite(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class PlanFiles:
    """Those that were asked for, and may be written."""

    order: Target | None
    arrays: Target | None
    page: Target | None

    def write(self, workload: Workload, made: Plan, report: PlanReport, name: str, listener: Listener) -> None:
        """name: of the job, for the page. Raises OutputUnavailableError."""
        if self.order is not None:
            listener(PhaseStarted("write", str(self.order.path)))
            with self.order.opened() as file:
                file.writelines(f"{workload.name(number)}\n".encode() for number in made.order.prompt.tolist())
        if self.arrays is not None:
            _save(self.arrays, made, plan_json(report))
        if self.page is not None:
            listener(PhaseStarted("write", str(self.page.path)))
            make_page([plan_subject(report, name)], self.page)


def plan_files(asked: Asked) -> PlanFiles:
    """Before any work. Raises UsageError, OutputUnavailableError."""
    # How those of an earlier plan are known. Ids alone might be anybody's.
    found = PlanFiles(
        _target(asked, asked.order_out, "--order-out", None),
        _target(asked, asked.save, "--save", _is_plan),
        _target(asked, asked.report, "--report", is_page),
    )
    if found.page is not None:
        refuse_without_scripts()
    _refuse_twice((found.order, found.arrays, found.page))
    return found


def _target(asked: Asked, path: Path | None, option: str, made: Made | None) -> Target | None:
    """A file that is asked for, if it may be written. Raises UsageError, OutputUnavailableError."""
    if path is None:
        return None
    target = Target(path, option, local_paths(asked.inputs), made, asked.overwrite)
    target.check()
    return target


def _refuse_twice(targets: Iterable[Target | None]) -> None:
    """Raises UsageError where two options name one file."""
    seen: dict[Path, str] = {}
    for target in targets:
        if target is None or not target.file:
            continue
        place = target.path.resolve()
        if place in seen:
            raise UsageError(f"{seen[place]} and {target.option} are one file, {target.path}; give each its own")
        seen[place] = target.option


def _is_plan(path: Path) -> bool:
    """Whether a file is what `_save` wrote."""
    return is_zipfile(path) and {"row.npy", "side.npy", "report.npy"} <= {*ZipFile(path).namelist()}


def _save(target: Target, made: Plan, report: bytes) -> None:
    """Arrays by name, no pickle. Raises OutputUnavailableError."""
    prompts, order = made.costed.structure.prompts, made.order
    with target.opened() as file:
        np.savez_compressed(
            file,
            row=prompts.row[order.prompt],
            side=order.side,
            prompt_tokens=prompts.prompt_tokens[order.prompt],
            expected_tokens=made.costed.structure.lengths.mean[order.prompt],
            report=np.frombuffer(report, dtype=np.uint8),
        )
