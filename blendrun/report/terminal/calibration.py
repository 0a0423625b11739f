"""What a calibration found, for people and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import msgspec
from rich.table import Table

from blendrun.calibrate.base import Calibration
from blendrun.cost.detect import CALIBRATED
from blendrun.report.terminal.console import print_parts

# Answers at once, of which a speed is told.
_MANY = 16
_MILLI, _MICRO, _NANO = 1e3, 1e6, 1e9


def calibration_json(found: Calibration, name: str, path: Path | None) -> dict[str, Any]:
    """Everything found, SI units, and where the card is: null where none was stored."""
    content: dict[str, Any] = msgspec.to_builtins(found)
    return {"name": name, "card": None if path is None else str(path)} | content


def print_calibration(found: Calibration, name: str, path: Path | None, stream: TextIO) -> None:
    """Rates and constants, measured against predicted, batch by batch, and what it means. path: of the card, if any."""
    with suppress(OSError):
        print_parts([_figures(found), "", _points(found), "", *_in_words(found, name, path)], stream)


def _in_words(found: Calibration, name: str, path: Path | None) -> Iterator[str]:
    step = found.step
    alone = step.step_seconds + step.weights_seconds + step.row_seconds + step.decode_token_seconds
    many = alone + (_MANY - 1) * (step.row_seconds + step.decode_token_seconds)
    yield (
        f"{found.model} here: reads {1 / step.prefill_token_seconds:,.0f} prompt tokens a second, writes "
        f"{1 / alone:,.0f} tokens a second of one answer and {_MANY / many:,.0f} of {_MANY} at once; plans are off by "
        f"{100 * step.fit_error:.0f} % on average."
    )
    if path is not None:
        use = (
            "Plans on this machine take it by themselves"
            if name == CALIBRATED
            else f"Plans take it with --hardware {name}"
        )
        yield f"{use}; to be rid of it: rm {shlex.quote(str(path))}"


def _figures(found: Calibration) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rates, step = found.rates, found.step
    rows = [
        ("matrix product", f"{rates.flops / 1e12:.3f} TFLOP/s"),
        ("copy", f"{rates.copy_bandwidth / 1e9:.1f} GB/s, read and written"),
        ("decode attention", f"{rates.attention_bandwidth / 1e9:.1f} GB/s ({rates.attention})"),
        *((("", f"not the engine's own: {rates.stand_in}"),) if rates.stand_in else ()),
        ("engine", ", ".join(f"{name}: {value}" for name, value in found.engine)),
        (
            "step",
            f"{step.step_seconds * _MILLI:.2f} ms, one pass over the weights {step.weights_seconds * _MILLI:.2f} ms",
        ),
        (
            "prefill",
            f"{step.prefill_token_seconds * _MICRO:.1f} us/token, {step.prefill_square_seconds * _NANO:.3f} ns/token^2",
        ),
        ("decode", f"{step.row_seconds * _MICRO:.1f} us/row, {step.kv_token_seconds * _MICRO:.4f} us/KV token read"),
        ("request", f"{step.request_seconds * _MILLI:.2f} ms; round trip {found.round_trip_seconds * _MILLI:.1f} ms"),
        ("fit error", f"{100 * step.fit_error:.1f} % mean, {100 * found.worst_error:.1f} % worst"),
        *((f"held-out {point.name}", f"{100 * point.error:+.1f} %") for point in found.held_out),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _points(found: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("batch")
    for column in ("measured s", "predicted s", "error"):
        table.add_column(column, justify="right")
    for point in (*found.points, *found.held_out):
        table.add_row(point.name, f"{point.seconds:.3f}", f"{point.predicted:.3f}", f"{100 * point.error:+.1f} %")
    return table
