"""The hardware card of this machine, found without torch."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Literal

from blendrun.cost.base import HardwareCard
from blendrun.cost.gpus import Gpu, hidden, query, usable_gpus
from blendrun.cost.hardware import list_hardware, load_hardware, match_hardware, user_hardware_folder
from blendrun.errors import UsageError

KFD_FOLDER = Path("/sys/class/kfd/kfd/topology/nodes")
# Where one of them is, there is a GPU, whoever can name it.
NVIDIA_NODES = (Path("/dev/nvidia0"), Path("/dev/nvidiactl"))

# What a calibration calls its card unless told otherwise.
CALIBRATED = "this-machine"

Runs = Literal["cpu", "gpu"]


def own_hardware(runs: Runs | None = None) -> str:
    """The card to plan with where none is named: this machine's calibrated one, else the one of its kind.

    runs: what the engine runs on; None for the GPU where there is one.
    A home folder may be shared by machines, and a machine may have GPUs of several kinds: a calibrated card counts only
    for what was measured. Raises as `detect_hardware`, and UsageError for a calibrated card that cannot be read.
    """
    if (user_hardware_folder() / f"{CALIBRATED}.yaml").is_file():
        card = load_hardware(CALIBRATED)
        if card.host == platform.node() and runs in (None, card.kind) and _is_of(card):
            return CALIBRATED
    return detect_hardware(runs)


def detect_hardware(runs: Runs | None = None) -> str:
    """The name, for `load_hardware`, of this machine's card; "cpu" where there is no GPU, or the engine runs on none.

    Raises UsageError where the user has to name the hardware: for a GPU without a card, for a slice of one, for GPUs of
    several kinds, and for one that is here and that nothing names.
    """
    if runs == "cpu":
        return "cpu"
    gpus = usable_gpus()
    if gpus:
        return _card_of_all(gpus)
    if (amd := next(iter(_amd_cards()), None)) is not None:
        return amd
    if runs == "gpu" or (not hidden() and any(node.exists() for node in NVIDIA_NODES)):
        raise UsageError(
            f"a GPU is here that neither nvidia-smi nor the driver's files name, as in some containers: {_advice()}"
        )
    return "cpu"


def compute_capability() -> tuple[int, int] | None:
    """Of the first NVIDIA GPU that can be used, (major, minor), as nvidia-smi says; None where it cannot be told."""
    try:
        gpus = usable_gpus()
    except UsageError:
        return None
    answer = query("compute_cap").get(gpus[0].uuid, "") if gpus else ""
    found = re.fullmatch(r"(\d+)\.(\d+)", answer)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _card_of_all(gpus: list[Gpu]) -> str:
    """The one card of all of them. Raises UsageError."""
    if part := next((gpu for gpu in gpus if gpu.mig is not None), None):
        raise UsageError(
            f"this machine's GPU is a MIG slice ({part.mig} of a {part.product}), which has its own rates and memory: "
            f"{_advice()}; `blendrun calibrate` measures one and writes its card"
        )
    found = {gpu.product: _card_of(gpu.product) for gpu in gpus}
    unknown = [name for name, card in found.items() if card is None]
    if unknown:
        raise UsageError(f"this machine has a {unknown[0]}, which has no hardware card: {_advice()}")
    cards = {card for card in found.values() if card is not None}
    if len(cards) > 1:
        raise UsageError(f"this machine has GPUs of several kinds ({', '.join(sorted(found))}): {_advice()}")
    return cards.pop()


def _advice() -> str:
    return f"pass --hardware with one of {', '.join(list_hardware())}, or the path of a card of your own"


def _is_of(card: HardwareCard) -> bool:
    """Whether the devices that can be used are of the kind that a card was measured on, where they have names."""
    if card.device is None:
        return True
    try:
        # torch calls a slice by its whole and its profile.
        return all(card.device.startswith(gpu.product) for gpu in usable_gpus())
    except UsageError:
        return False


def _card_of(product: str) -> str | None:
    return match_hardware(re.sub(r"\s+", " ", product).strip().removeprefix("NVIDIA "))


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
