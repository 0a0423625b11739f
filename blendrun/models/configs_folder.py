"""Where the YAML cards lie: inside the package in a wheel, at the top of the repository in a checkout."""

from __future__ import annotations

from pathlib import Path

from blendrun.errors import InputMissingError

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_folder(kind: str) -> Path:
    """The folder of one kind of card, such as `models` or `hardware`.

    Raises InputMissingError where the installation has no such folder.
    """
    for root in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (root / kind).is_dir():
            return root / kind
    raise InputMissingError(f"this installation has no configs/{kind} beside {_PACKAGE}: install blendrun again")
