"""What a page is about: a run with its files, or a plan alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import msgspec

from blendrun.errors import InputMissingError
from blendrun.report.page.requests import Requests, no_requests, read_requests
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.schemas.series import Series, StepTotals, replicas_series
from blendrun.store import manifest as manifests
from blendrun.store import status as statuses
from blendrun.store import summary as summaries
from blendrun.store.folder import StateFolder
from blendrun.store.manifest import Manifest
from blendrun.store.status import BatchStatus
from blendrun.store.summary import Summary


@dataclass(frozen=True, slots=True)
class Subject:
    """One column of the page. A plan alone has neither summary nor steps; a run that was not planned has no plan.

    summary: null while a run works, or where it was killed: then `status` says how far it came.
    """

    name: str
    plan: PlanReport | None
    summary: Summary | None = None
    status: BatchStatus | None = None
    manifest: Manifest | None = None
    series: Series | None = None
    steps: StepTotals | None = None
    requests: Requests | None = None

    @property
    def ran(self) -> bool:
        return self.manifest is not None

    @property
    def planned(self) -> Series | None:
        """The timeline of the plan."""
        return self.plan.timeline if self.plan else None

    @property
    def run_seconds(self) -> float | None:
        """From the first request handed over to the last answer, of all invocations; None for what did not run."""
        return self.requests.seconds if self.requests is not None and self.requests.count else None


def run_subject(path: Path, name: str) -> Subject:
    """Read the files of a run. path: its output, or its state folder. Raises InputMissingError."""
    path = path.resolve()
    folder = path if path.is_dir() and path.name else StateFolder(path).path
    # The state folder knows its own file names; the output need not be there yet.
    state = StateFolder(folder.with_name(folder.name.removesuffix(".blendrun")))
    manifest = manifests.read(state.manifest, accept_changes=True)
    if manifest is None:
        raise InputMissingError(f"no run in {folder}: give the output file of a run, or its .blendrun folder")
    plan = None
    with suppress(InputMissingError):
        # Another version's; all else of the run can be shown.
        plan = read_plan(state.plan)
    series, steps, admissions = replicas_series(state.all_steps)
    return Subject(
        name=name,
        plan=plan,
        summary=summaries.read(state.summary),
        status=statuses.read(state.status),
        manifest=manifest,
        series=series,
        steps=steps,
        requests=read_requests(state.records, plan.icicle if plan else (), admissions),
    )


def plan_subject(report: PlanReport, name: str) -> Subject:
    """A plan alone."""
    return Subject(name=name, plan=report, requests=no_requests())


def read_plan(path: Path) -> PlanReport:
    """What `blendrun plan --json` printed, or --save wrote. Raises InputMissingError."""
    try:
        return msgspec.json.decode(_json_of(path), type=PlanReport)
    except OSError as error:
        raise InputMissingError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputMissingError(
            f"{path} is no plan of this version: make it with `blendrun plan --json` or `--save` ({error})"
        ) from error


def _json_of(path: Path) -> bytes:
    if path.suffix != ".npz":
        return path.read_bytes()
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return bytes(arrays["report"].tobytes())
