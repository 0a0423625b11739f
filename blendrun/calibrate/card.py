"""The hardware card that a calibration leaves: made, written, read back."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path

import msgspec
import yaml

from blendrun.calibrate.base import Calibration
from blendrun.cost.base import Figure, HardwareCard
from blendrun.cost.hardware import load_hardware, user_hardware_folder
from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.files import probe, replacing
from blendrun.store.guard import Target, begins_with

_HEAD = "# Written by `blendrun calibrate`"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def card_path(name: str, output: Path | None = None) -> Path:
    """Where the card goes: `output`, or the user's own folder, whose cards win over shipped ones.

    Raises UsageError for a name that is no file name, and for an output that is no .yaml file.
    """
    if output is not None:
        if output.suffix not in (".yaml", ".yml"):
            raise UsageError(f"-o {output}: a hardware card is a .yaml file")
        return output
    if not _NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        raise UsageError(f"--name {name!r}: use letters, digits, dots, - and _, without .yaml")
    return user_hardware_folder() / f"{name}.yaml"


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Find out before minutes of measuring. Raises UsageError, OutputUnavailableError.

    overwrite: a card that no calibration wrote may be replaced.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe(path)
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another file with -o") from error
    Target(path, "-o", (), begins_with(_HEAD.encode()), overwrite).check()


def make_card(name: str, found: Calibration, base: HardwareCard | None, command: str) -> HardwareCard:
    """The card of a machine whose rates were measured; peaks are those of `base` as far as nothing exceeded them.

    base: the shipped card of the device, or None where none is known: then what was reached stands for the peak.
    command: what was typed; part of every measured figure's source.
    """
    source = f"{command}, {found.date}, {_with(found)}"
    rates = found.rates
    flops = Figure(rates.flops, f"{source}: matrix product", "measured")
    ran = f"{rates.attention}; {rates.stand_in}" if rates.stand_in else rates.attention
    bandwidth = Figure(rates.attention_bandwidth, f"{source}: decode attention ({ran})", "measured")
    copied = Figure(rates.copy_bandwidth, f"{source}: copy", "measured")
    faster = copied if copied.value > bandwidth.value else bandwidth
    return HardwareCard(
        name=name,
        title=f"{_device(found)}, calibrated with {found.model}",
        kind="gpu" if found.platform == "gpu" else "cpu",
        memory=Figure(rates.memory, f"{source}: what the device reports", "measured"),
        peak_flops=_peak(base.peak_flops if base else None, flops),
        peak_bandwidth=_peak(base.peak_bandwidth if base else None, faster),
        achieved_flops=flops,
        achieved_bandwidth=bandwidth,
        value_bytes=2 if found.platform == "gpu" else 4,
        step=found.step,
        host=platform.node(),
        device=found.rates.device if found.platform == "gpu" else None,
        mixed_attention=base.mixed_attention if base else None,
        host_bandwidth=base.host_bandwidth if base else None,
    )


def write_card(card: HardwareCard, path: Path, found: Calibration) -> None:
    """Write the file, whole or not at all, and read it back. Raises OutputUnavailableError."""
    # A measured card counts on the machine it was measured on, whatever its device is called.
    content = {key: value for key, value in msgspec.to_builtins(card).items() if key not in ("name", "matches")}
    text = _head(found) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, 0o644) as file:
            file.write(text.encode())
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another file with -o") from error
    load_hardware(str(path.absolute()))


def _peak(known: Figure | None, achieved: Figure) -> Figure:
    """The known peak, or what was reached where that is more: a card refuses a rate above its peak."""
    return known if known is not None and known.value >= achieved.value else achieved


def _head(found: Calibration) -> str:
    worst = f"fit error {100 * found.step.fit_error:.1f} % on average, {100 * found.worst_error:.1f} % at worst"
    held = "".join(f"; held-out {point.name} {100 * point.error:+.1f} %" for point in found.held_out)
    engine = "".join(f"; {name}: {value}" for name, value in found.engine)
    return f"{_HEAD} on {found.date}, {_with(found)}{engine}.\n# {worst}{held}.\n"


def _with(found: Calibration) -> str:
    parts = [f"{name} {version}" for name, version in sorted(found.versions.items())]
    if found.threads is not None:
        parts.append(f"{found.threads} threads of {os.cpu_count()} cores")
    return ", ".join(parts)


def _device(found: Calibration) -> str:
    if found.platform == "gpu":
        return found.rates.device
    return f"{_cpu_name()}, {found.threads} threads, float32"


def _cpu_name() -> str:
    """The processor's name as the kernel has it."""
    with contextlib.suppress(OSError):
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if named:
            return named.group(1).strip()
    return platform.processor() or platform.machine()
