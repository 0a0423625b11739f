"""What two test processes must not make at once: loops, the demo's model, a page's script. `python -m tests.warm`."""

from __future__ import annotations

# Kernels are known once their modules are imported.
import blendrun.planner.plan
import blendrun.tree.hits  # noqa: F401
from blendrun.models.resolve import resolve_model
from blendrun.report.page.page import _script
from blendrun.tree.compiled import load_kernels


def main() -> None:
    resolve_model("smollm2-135m", platform="cpu")
    load_kernels()
    _script()


if __name__ == "__main__":
    main()
