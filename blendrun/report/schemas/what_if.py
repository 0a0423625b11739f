"""What one thing more would bring a plan: a row of `blendrun plan --json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.planner.what_if import WhatIf


@dataclass(frozen=True, slots=True)
class WhatIfRow:
    """What one thing more would bring, which blendrun does not turn on. Simulated, on what was assumed of it.

    setting: a sentence. overlap: mode. seconds: of the whole job with it. gain: times as fast as the plan, less 1.
    engine_args: what turns it on; null where it does not pay or cannot be had: why_not says why.
    """

    setting: str
    overlap: str
    seconds: float
    gain: float
    engine_args: dict[str, Any] | None
    why_not: str | None


def what_if_row(found: WhatIf, arguments: dict[str, Any] | str) -> WhatIfRow:
    """arguments: of the engine that has it, or why there is none."""
    if found.gain <= 0:
        arguments = "it does not pay"
    row = (found.setting, str(found.overlap), found.seconds, found.gain)
    return WhatIfRow(*row, None, arguments) if isinstance(arguments, str) else WhatIfRow(*row, arguments, None)
