"""What a page is about: a run with its files, or a plan alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import msgspec

from blendrun.errors import InputMissingError
from blendrun.report.page.requests import Requests, no_requests, read_requests
from blendrun.report.page.samples import Sample, Wish, read_samples, wishes
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.schemas.series import Series, StepTotals, replicas_series
from blendrun.store import manifest as manifests
from blendrun.store import status as statuses
from blendrun.store import summary as summaries
from blendrun.store.folder import StateFolder
from blendrun.store.manifest import Manifest
from blendrun.store.status import BatchStatus
from blendrun.store.summary import Summary

_SHOWN_UNKEPT = 10


class _Unkept(msgspec.Struct):
    """What the page shows of a line of unkept.jsonl."""

    custom_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Subject:
    """One column of the page. A plan alone has neither summary nor steps; a run that was not planned has no plan.

    summary: null while a run works, or where it was killed: then `status` says how far it came. samples: a few requests
    with their answers. unkept: answers that do not keep their form, the first of them: (custom_id, reason). price: of
    an hour of one GPU, or of the machine; None for what the run was told.
    """

    name: str
    plan: PlanReport | None
    summary: Summary | None = None
    status: BatchStatus | None = None
    manifest: Manifest | None = None
    series: Series | None = None
    steps: StepTotals | None = None
    requests: Requests | None = None
    samples: tuple[Sample, ...] = ()
    unkept: tuple[tuple[str, str], ...] = ()
    price: float | None = None

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


def run_subject(
    path: Path, name: str, *, answers: bool = True, like: Subject | None = None, price: float | None = None
) -> Subject:
    """Read the files of a run. path: its output, or its state folder.

    answers: whether to show some answers and their prompts, and the texts of prefixes. like: another run, of whose
    requests they shall be where the job is the same. price: as of `Subject`.

    Raises InputMissingError.
    """
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
        plan = read_plan(state.plan) if answers else _without_texts(read_plan(state.plan))
    series, steps, admissions = replicas_series(state.all_steps)
    requests = read_requests(state.records, plan.icicle if plan else (), admissions)
    unkept = _unkept(state.unkept)
    status = statuses.read(state.status)
    # While a run goes on, its summary is of an invocation before.
    ended = status is None or status.blendrun.exit_code is not None
    return Subject(
        name=name,
        plan=plan,
        summary=summaries.read(state.summary) if ended else None,
        status=status,
        manifest=manifest,
        series=series,
        steps=steps,
        requests=requests,
        samples=read_samples(_wanted(requests, unkept, like, manifest), state, manifest) if answers else (),
        unkept=unkept,
        price=price,
    )


def same_job(one: Manifest | None, other: Manifest | None) -> bool:
    """Whether two runs were given the same lines."""
    return one is not None and other is not None and one.input_fingerprint == other.input_fingerprint


def _wanted(
    requests: Requests, unkept: tuple[tuple[str, str], ...], like: Subject | None, manifest: Manifest
) -> list[Wish]:
    if like is not None and same_job(like.manifest, manifest):
        return [Wish(each.custom_id, each.number, each.why) for each in like.samples]
    found = wishes(requests)
    named = {each.custom_id for each in found}
    if unkept and unkept[0][0] not in named:
        found.append(Wish(unkept[0][0], 0, "not in the form that was asked for"))
    return found


def _unkept(path: Path) -> tuple[tuple[str, str], ...]:
    """The first of the list; nothing of what is torn."""
    found = []
    with suppress(OSError), path.open("rb") as file:
        for line in islice(file, _SHOWN_UNKEPT):
            with suppress(msgspec.DecodeError):
                entry = msgspec.json.decode(line, type=_Unkept)
                found.append((entry.custom_id, entry.reason))
    return tuple(found)


def plan_subject(report: PlanReport, name: str, *, texts: bool = True) -> Subject:
    """A plan alone. texts: whether to show those of prefixes."""
    return Subject(name=name, plan=report if texts else _without_texts(report), requests=no_requests())


def _without_texts(report: PlanReport) -> PlanReport:
    return replace(report, icicle=tuple(replace(node, text="") for node in report.icicle))


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
