"""The hardware card of this machine, found without torch."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from blendrun.cost.hardware import list_hardware, load_hardware, match_hardware, user_hardware_folder
from blendrun.errors import UsageError

PROC_FOLDER = Path("/proc/driver/nvidia/gpus")
KFD_FOLDER = Path("/sys/class/kfd/kfd/topology/nodes")


# What a calibration calls its card unless told otherwise.
CALIBRATED = "this-machine"


def own_hardware() -> str:
    """The card to plan with where none is named: this machine's calibrated one, else the one of its kind.

    A home folder may be shared by machines: a card counts only where it was measured. Raises as `detect_hardware`, and
    UsageError for a calibrated card that cannot be read.
    """
    if (user_hardware_folder() / f"{CALIBRATED}.yaml").is_file() and load_hardware(CALIBRATED).host == platform.node():
        return CALIBRATED
    return detect_hardware()


def detect_hardware() -> str:
    """The name, for `load_hardware`, of this machine's card; "cpu" where there is no GPU.

    Raises UsageError for a GPU without a card and for GPUs of several kinds: the user has to name the hardware.
    """
    names = _nvidia_names()
    if not names:
        return next((card for card in _amd_cards()), "cpu")
    found = {name: _card_of(name) for name in names}
    unknown = [name for name, card in found.items() if card is None]
    advice = f"pass --hardware with one of {', '.join(list_hardware())}, or the path of a card of your own"
    if unknown:
        raise UsageError(f"this machine has a {unknown[0]}, which has no hardware card: {advice}")
    cards = {card for card in found.values() if card is not None}
    if len(cards) > 1:
        raise UsageError(f"this machine has GPUs of several kinds ({', '.join(sorted(found))}): {advice}")
    return cards.pop()


def compute_capability() -> tuple[int, int] | None:
    """Of this machine's first NVIDIA GPU, (major, minor), as nvidia-smi says; None where it cannot be told."""
    answers = _nvidia_smi("compute_cap") or []
    found = re.fullmatch(r"(\d+)\.(\d+)", answers[0]) if answers else None
    return (int(found.group(1)), int(found.group(2))) if found else None


def _card_of(product: str) -> str | None:
    return match_hardware(re.sub(r"\s+", " ", product).strip().removeprefix("NVIDIA "))


def _nvidia_names() -> list[str]:
    """Product names of this machine's NVIDIA GPUs: what nvidia-smi says, else what the driver shows in /proc."""
    if (names := _nvidia_smi("name")) is not None:
        return names
    found = (re.search(r"^Model:\s*(.+)$", _text(path), re.MULTILINE) for path in PROC_FOLDER.glob("*/information"))
    return [model.group(1).strip() for model in found if model]


def _nvidia_smi(field: str) -> list[str] | None:
    """A field of each GPU; None where the program is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        # An image may ship the program on a machine without a GPU; it then fails.
        return None
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _amd_cards() -> list[str]:
    """Cards of this machine's AMD GPUs; one without a card counts for nothing, as most are a CPU's display."""
    texts = [_text(path) for path in sorted(KFD_FOLDER.glob("*/properties"))]
    found = (re.search(r"^device_id (\d+)$", text, re.MULTILINE) for text in texts if "vendor_id 4098\n" in text)
    cards = (match_hardware(f"1002:{int(device.group(1)):04x}") for device in found if device)
    return [card for card in cards if card is not None]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
