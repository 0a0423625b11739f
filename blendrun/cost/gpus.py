"""The NVIDIA GPUs that an engine started here would see: what the driver lists, as far as CUDA_VISIBLE_DEVICES goes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blendrun.errors import UsageError

PROC_FOLDER = Path("/proc/driver/nvidia/gpus")
VARIABLE = "CUDA_VISIBLE_DEVICES"

_LISTED = re.compile(r"GPU \d+: (.+) \(UUID: (GPU-[\w-]+)\)")
_SLICE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one slice of one. product: as the driver has it. uuid: of the whole GPU.

    mig: the slice's profile, such as "1g.10gb"; None for a whole GPU.
    """

    product: str
    uuid: str
    mig: str | None = None


@dataclass(frozen=True, slots=True)
class _Listed:
    """A GPU with its slices, as (profile, uuid): where there are any, programs see those and not the whole."""

    product: str
    uuid: str
    slices: tuple[tuple[str, str], ...] = ()

    def seen(self) -> list[Gpu]:
        return [Gpu(self.product, self.uuid, profile) for profile, _ in self.slices] or [Gpu(self.product, self.uuid)]


def usable_gpus() -> list[Gpu]:
    """GPUs in CUDA's order, one at least of each that can be used.

    Raises UsageError where the variable names none of those that are here, and where it counts GPUs of several kinds,
    which CUDA sorts by speed and the driver by place.
    """
    listed = _by_program()
    if listed is None:
        listed = _by_proc()
    named = os.environ.get(VARIABLE)
    if named is None or not listed:
        return [gpu for each in listed for gpu in each.seen()]
    entries = [entry.strip() for entry in named.split(",")]
    kinds = {each.product for each in listed}
    counted = any(entry.isdigit() for entry in entries)
    if counted and len(kinds) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise UsageError(
            f"{VARIABLE}={named} counts GPUs of several kinds ({', '.join(sorted(kinds))}), and CUDA sorts by "
            "speed: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID, or pass --hardware"
        )
    found = _named(listed, entries)
    if not found and not hidden():
        raise UsageError(f"{VARIABLE}={named} names no GPU that is here: see `nvidia-smi -L`")
    return found


def hidden() -> bool:
    """Whether the environment hides every GPU."""
    return os.environ.get(VARIABLE) in ("", "-1")


def query(field: str) -> dict[str, str]:
    """A field of `nvidia-smi --query-gpu` for each GPU by its UUID; empty where the program is missing or fails."""
    lines = _nvidia_smi(f"--query-gpu=uuid,{field}", "--format=csv,noheader") or []
    pairs = (line.partition(",") for line in lines)
    return {uuid.strip(): value.strip() for uuid, _, value in pairs}


def _named(listed: Sequence[_Listed], entries: Sequence[str]) -> list[Gpu]:
    """As CUDA reads the variable: what follows an entry that means nothing does not count."""
    found: list[Gpu] = []
    for entry in entries:
        if entry.isdigit() and int(entry) < len(listed):
            found += listed[int(entry)].seen()
        elif entry.startswith("GPU-") and len(same := [each for each in listed if each.uuid.startswith(entry)]) == 1:
            found += same[0].seen()
        elif entry.startswith("MIG-"):
            found.append(_slice(listed, entry))
        else:
            break
    return found


def _slice(listed: Sequence[_Listed], entry: str) -> Gpu:
    for each in listed:
        for profile, uuid in each.slices:
            if uuid and uuid.startswith(entry):
                return Gpu(each.product, each.uuid, profile)
    # The driver's files, or an old driver, do not tell whose it is.
    return Gpu(listed[0].product, listed[0].uuid, entry)


def _by_program() -> list[_Listed] | None:
    """What `nvidia-smi -L` lists; None where the program is missing or fails."""
    lines = _nvidia_smi("-L")
    if lines is None:
        return None
    found: list[_Listed] = []
    for line in lines:
        if whole := _LISTED.match(line):
            found.append(_Listed(whole.group(1).strip(), whole.group(2)))
        elif found and (part := _SLICE.match(line)):
            last = found[-1]
            found[-1] = _Listed(last.product, last.uuid, (*last.slices, (part.group(1), part.group(2))))
    return found


def _by_proc() -> list[_Listed]:
    """What the driver shows in /proc, in the order of places on the bus."""
    found = []
    for path in sorted(PROC_FOLDER.glob("*/information")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        model = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
        uuid = re.search(r"^GPU UUID:\s*(GPU-[\w-]+)", text, re.MULTILINE)
        if model:
            found.append(_Listed(model.group(1).strip(), uuid.group(1) if uuid else "", _slices_by_proc(text)))
    return found


def _slices_by_proc(text: str) -> tuple[tuple[str, str], ...]:
    """Of a GPU by its `information`: that there are some, and no more, can be seen."""
    minor = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
    folder = PROC_FOLDER.parent / "capabilities" / f"gpu{minor.group(1)}" / "mig" if minor else None
    return tuple((part.name, "") for part in sorted(folder.glob("gi*"))) if folder else ()


def _nvidia_smi(*words: str) -> list[str] | None:
    """Lines that are not blank; None where the program is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run([program, *words], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        # An image may ship the program on a machine without a GPU; it then fails.
        return None
    return [line for line in answer.stdout.splitlines() if line.strip()]
