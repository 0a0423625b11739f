"""One plan, from its options to its report, without an engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec

from blendrun.backends.hub_inputs import with_hub_files
from blendrun.backends.inputs import tell_left_out, without_answers
from blendrun.backends.kept import looked_for
from blendrun.backends.machines import machines_of
from blendrun.backends.modes import automatic_modes, mode_refused
from blendrun.backends.options import AtLeast1, check_endpoint, convert_options
from blendrun.backends.plan_files import plan_files
from blendrun.backends.row_options import RowArguments, RowOptions
from blendrun.backends.speed import taught
from blendrun.backends.what_ifs import parse_drafts, what_ifs
from blendrun.blend.orders import AUTOMATIC
from blendrun.cost.base import Machine
from blendrun.cost.hardware import STAND_IN
from blendrun.endpoints.adapters import declared_adapters
from blendrun.engine.base import Platform
from blendrun.engine.overlap import JobFacts
from blendrun.engine.settings import available_cores
from blendrun.engine.sizes import limits_to_plan
from blendrun.errors import UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.jobs.source import open_sources
from blendrun.names import Dedupe, LengthMode, OrderName, Overlap
from blendrun.planner.plan import Choice, Plan, Structure, cost_structure, make_plan, make_structure
from blendrun.planner.workload import Wanted, Workload, load_workload
from blendrun.remote.address import shown
from blendrun.report.schemas.plan import MachineRow, PlanReport
from blendrun.report.schemas.planned import machine_row, plan_report, unfit_row
from blendrun.scratch import scratch_folder
from blendrun.tree.small import run_small


class PlanArguments(RowArguments, total=False):
    """The fields of `PlanOptions` but for `inputs` and `model`, for those who call `blendrun.plan`."""

    hardware: str | Iterable[str] | None
    gpus: str | int | Iterable[int] | None
    tp: int | None
    tokenizer: Path | str | None
    lengths: LengthMode | str
    orders: str | Iterable[OrderName | str]
    overlap: Overlap | str | None
    price: str | float | Iterable[str]
    engine_args: dict[str, Any]
    keep_sharing: float
    drafts: str | None
    host_memory: float | None
    limit: int | None
    endpoint: str | None
    dedupe: Dedupe | str
    cache: Path | str | None
    order_out: Path | str | None
    save: Path | str | None
    report: Path | str | None
    overwrite: bool


class PlanOptions(RowOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan is asked for, one field for each option of `blendrun plan` (docs/cli.md says what each does).

    hardware, gpus: comma-separated; gpus None for those of one engine. tp: GPUs of one engine, None to leave that open.
    overlap: None for exclusive or mixed. price: of a GPU hour, "X" or "CARD=X". drafts: "COUNT:ACCEPTANCE".
    host_memory: GB a device.
    """

    inputs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    model: str | None = None
    hardware: str | None = None
    gpus: str | None = None
    tp: AtLeast1 | None = None
    tokenizer: Path | None = None
    lengths: LengthMode = LengthMode.AUTO
    orders: Annotated[tuple[OrderName, ...], msgspec.Meta(min_length=1)] = tuple(OrderName)
    overlap: Overlap | None = None
    price: tuple[str, ...] = ()
    engine_args: dict[str, Any] = msgspec.field(default_factory=dict)
    keep_sharing: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.99
    drafts: str | None = None
    host_memory: Annotated[float, msgspec.Meta(gt=0)] | None = None
    limit: AtLeast1 | None = None
    endpoint: str | None = None
    dedupe: Dedupe = Dedupe.AUTO
    cache: Path | None = None
    order_out: Path | None = None
    save: Path | None = None
    report: Path | None = None
    overwrite: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PlanOptions:
        """From names and plain values; "auto" leaves a choice open. Raises UsageError naming what is wrong."""
        listed = {name: _listed(given[name]) for name in ("orders", "price") if given.get(name) is not None}
        joined = {name: _joined(given[name]) for name in ("gpus", "hardware") if given.get(name) is not None}
        found = convert_options({**given, **listed, **joined}, cls, "a plan")
        check_endpoint(found.endpoint)
        parse_drafts(found.drafts)
        if found.model is None:
            raise UsageError("which model? Give --model, for example --model llama-3-8b")
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the engine."""
        return self.engine_args if self.tp is None else self.engine_args | {"tp_size": self.tp}

    @property
    def devices(self) -> int:
        """GPUs of one engine. Raises UsageError."""
        return limits_to_plan("gpu", self.arguments).devices or 1

    def choice(self, card: str) -> Choice:
        """What may be chosen on a card. Raises UsageError."""
        prices: dict[str, float] = {}
        for given in self.price:
            name, _, price = given.rpartition("=")
            try:
                prices[name.strip()] = float(price)
                if not 0 <= prices[name.strip()] < math.inf:
                    raise ValueError(price)
            except ValueError as error:
                raise UsageError(f"--price takes X or CARD=X, for example {STAND_IN}=2.5, not {given!r}") from error
        overlaps = (Overlap.EXCLUSIVE, Overlap.MIXED) if self.overlap is None else (self.overlap,)
        return Choice(self.orders, overlaps, prices.get(card, prices.get("")))

    def beside(self, platform: Platform, any_logprobs: bool) -> frozenset[OrderName | Overlap]:
        """What a run on a platform would not choose: simulated all the same, unless the user named what to choose from.

        any_logprobs: whether a request asks for log probabilities.
        """
        found: set[OrderName | Overlap] = set()
        if self.orders == tuple(OrderName):
            found |= {*OrderName} - {*AUTOMATIC}
        if self.overlap is None:
            facts, modes = JobFacts(any_logprobs=any_logprobs), automatic_modes(platform)
            possible = {mode for mode in modes if mode_refused(mode, platform, self.arguments, facts) is None}
            found |= {*Overlap} - (possible or {Overlap.EXCLUSIVE})
        return frozenset(found)


def _listed(value: Any) -> tuple[str, ...]:
    """As a list, however it was given: comma-separated, one number, any iterable."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else (value,)
    return tuple(text for part in parts if (text := str(part).strip()))


def _joined(value: Any) -> str:
    return ",".join(_listed(value))


def plan_job(options: PlanOptions, listener: Listener) -> tuple[PlanReport, str | None]:
    """The report, and the first prompt as the model will see it; files as the options ask for.

    Raises UsageError, InputInvalidError, InputMissingError, OutputUnavailableError, AllKeptError.
    """
    files = plan_files(options)
    # A pattern of the shell names the answers, too.
    kept, left_out = without_answers(with_hub_files(options.inputs, listener), rows=options.says_rows)
    tell_left_out(left_out, listener)
    options = msgspec.structs.replace(options, inputs=kept)
    machines = machines_of(options.hardware, options.gpus, options.devices)
    # Once now: a wrong price is refused before anything is read.
    options.choice(machines[0].card.name)
    # Unpacked copies of the input are needed to the end: names are read from them.
    with scratch_folder("plan") as spool:
        workload = _workload(options, machines, spool, listener)
        made, report = _planned(workload, machines, options, listener)
        files.write(workload, made, report, " ".join(map(shown, options.inputs)), listener)
        return report, workload.first_prompt


def _workload(options: PlanOptions, machines: Sequence[Machine], spool: Path, listener: Listener) -> Workload:
    adapters = declared_adapters(options.engine_args.get("lora_paths")) or None
    wanted = Wanted(
        str(options.model),
        options.tokenizer,
        options.limit,
        options.endpoint,
        partial(looked_for, options, machines[0], listener),
        adapters,
        options.cache,
        options.engine_args,
    )
    columns = options.columns(options.endpoint, options.limit)
    return load_workload(open_sources(options.inputs, spool, columns=columns, listener=listener), wanted, listener)


def _planned(
    workload: Workload, machines: Sequence[Machine], options: PlanOptions, listener: Listener
) -> tuple[Plan, PlanReport]:
    """The plan for the first machine that the job runs on, and the report with a row for each."""
    prompts = len(workload.prompts) * len(machines)
    return run_small(prompts, lambda: _of_machines(workload, machines, options, listener))


def _of_machines(
    workload: Workload, machines: Sequence[Machine], options: PlanOptions, listener: Listener
) -> tuple[Plan, PlanReport]:
    structure = make_structure(workload.prompts, workload.model, options.lengths, listener)
    plans: list[Plan] = []
    rows: list[MachineRow] = []
    for on in machines:
        listener(PhaseStarted("simulate", f"{on.gpus} x {on.card.title}"))
        try:
            made = _on_machine(structure, workload, on, options, listener)
        except UsageError as error:
            if len(machines) == 1:
                raise
            rows.append(unfit_row(on.card.name, on.gpus, str(error)))
            continue
        plans.append(made)
        rows.append(machine_row(made, options.choice(on.card.name).gpu_hour))
    if not plans:
        raise UsageError(f"the job runs on none of these machines; the first: {rows[0].why_not}")
    first = plans[0]
    asked = what_ifs(first, options.drafts, options.host_memory, options.engine_args)
    price = options.choice(first.costed.machine.card.name).gpu_hour
    return first, plan_report(first, workload, tuple(rows), asked, price)


def _on_machine(
    structure: Structure, workload: Workload, on: Machine, options: PlanOptions, listener: Listener
) -> Plan:
    platform: Platform = "cpu" if on.card.kind == "cpu" else "gpu"
    limits = limits_to_plan(platform, options.arguments)
    if options.hardware is None:
        card, name, threads = workload.model.card, workload.model_name, available_cores()
        on = taught(on, card, name, options.arguments, listener, threads=threads)
    costed = cost_structure(structure, workload.model.card, on, keep=options.keep_sharing, limits=limits)
    beside = options.beside(platform, workload.any_logprobs)
    return make_plan(costed, replace(options.choice(on.card.name), beside=beside), listener)
