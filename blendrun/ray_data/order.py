"""Rows of a dataset in the order that finishes soonest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.partition import partition
from blendrun.cost.base import Machine
from blendrun.cost.capacity import EngineLimits
from blendrun.cost.detect import own_hardware
from blendrun.cost.hardware import STAND_IN, load_hardware, machine
from blendrun.endpoints.adapters import declared_adapters
from blendrun.engine.sizes import limits_to_plan
from blendrun.errors import UsageError
from blendrun.events import Event, Note, PhaseStarted
from blendrun.jobs.source import open_sources
from blendrun.names import LengthMode, OrderName
from blendrun.planner.plan import Choice, cost_structure, make_parts, make_plan, make_structure
from blendrun.planner.workload import Wanted, Workload, load_workload
from blendrun.ray_data.rows import ToRequest, request_line
from blendrun.scratch import scratch_folder

_log = logging.getLogger("blendrun")
_PLACE, _PART = "blend_place", "blend_part"


def blend(
    dataset: Any,
    *,
    model: str,
    to_request: ToRequest | None = None,
    parts: int = 1,
    hardware: str | None = None,
    order: str | None = None,
    engine_args: dict[str, Any] | None = None,
) -> Any:
    """The rows of a `ray.data.Dataset` in the order in which an engine answers them soonest.

    A new column `blend_place` counts from 0 in that order. With several `parts`, for as many engines, another one
    (`blend_part`) says whose a row is: parts are equal in compute and in memory work, rows that share a prefix stay
    together, and each part's rows come behind the last one's.
    model: alias, hub id or folder, whose tokenizer and dimensions the plan needs. hardware: a card's name; None for
    this machine's. order: of `blendrun plan --orders`; None for the one that is predicted to be fastest. engine_args:
    SGLang's, where they say how large an engine is.

    The dataset is executed, and the rows' requests pass through this process, which plans. What follows must keep the
    order of blocks: `ray.data.DataContext.get_current().execution_options.preserve_order = True`, or one worker.
    Raises UsageError, InputInvalidError (no row is a request), InputMissingError (no tokenizer).
    """
    import pyarrow
    import ray

    if parts < 1:
        raise UsageError(f"parts={parts}: give 1 or more")
    choice = Choice() if order is None else Choice(orders=(OrderName(order),))
    adapters = declared_adapters((engine_args or {}).get("lora_paths")) or None
    card = load_hardware(hardware or _own_hardware())
    limits = limits_to_plan("cpu" if card.kind == "cpu" else "gpu", engine_args or {})
    on = machine(card, limits.devices or 1)
    # Its rows have numbers only once there is one execution of it.
    dataset = dataset.materialize()
    with scratch_folder("ray-data") as folder:
        path = folder / "rows.jsonl"
        rows = _write(dataset, path, to_request)
        wanted = Wanted(model, adapters=adapters, arguments=engine_args or {})
        workload = load_workload(open_sources([path], folder), wanted, _hear)
        place, part = _places(workload, rows, parts, choice, on, limits)
    columns = {_PLACE: place} | ({_PART: part} if parts > 1 else {})
    numbered = dataset.zip(ray.data.from_arrow(pyarrow.table(columns)))
    return numbered.sort(_PLACE)


def _write(dataset: Any, path: Path, to_request: ToRequest | None) -> int:
    """A line for each row; how many there are."""
    rows = 0
    with path.open("wb") as file:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():
                file.write(request_line(row, rows, to_request) + b"\n")
                rows += 1
    return rows


def _places(
    workload: Workload, rows: int, parts: int, choice: Choice, on: Machine, limits: EngineLimits
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place and part of each row: i64 (rows,). What cannot be planned comes first, so that its error is seen early."""
    structure = make_structure(workload.prompts, workload.model, LengthMode.AUTO, _hear)
    costed = cost_structure(structure, workload.model.card, on, limits=limits)
    numbers = workload.prompts.row
    part = np.zeros(rows, dtype=np.int64)
    planned: list[NDArray[np.int64]] = []
    if parts == 1:
        planned.append(numbers[make_plan(costed, choice).order.prompt])
    else:
        made = make_parts(costed, choice, partition(structure.tree, costed.demand, parts))
        for count, each in enumerate(made.parts):
            planned.append(numbers[each.numbers[each.plan.order.prompt]])
            part[planned[-1]] = count
    unplanned = np.setdiff1d(np.arange(rows), numbers, assume_unique=True)
    place = np.empty(rows, dtype=np.int64)
    place[np.concatenate((unplanned, *planned))] = np.arange(rows)
    return place, part


def _own_hardware() -> str:
    try:
        return own_hardware()
    except UsageError as error:
        _log.warning("%s; planned as for %s", error, STAND_IN)
        return STAND_IN


def _hear(event: Event) -> None:
    """To the log; how far it is Ray Data shows."""
    if isinstance(event, PhaseStarted):
        _log.info("%s: %s", event.name, event.detail)
    elif isinstance(event, Note):
        _log.log(logging.WARNING if event.warning else logging.INFO, event.text)
