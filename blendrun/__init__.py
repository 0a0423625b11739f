"""blendrun: finish a file of LLM requests in the least time the hardware allows, and lose nothing.

`blendrun.run`, `blendrun.plan` and `blendrun.read` are in `blendrun.api`, `blendrun.Engine` is in
`blendrun.python_engine`, loaded when they are first named: the command line's `--help` needs none of what they do.
"""

from __future__ import annotations

from importlib import import_module

from blendrun.version import __version__

# Nothing that Python has not loaded by itself: with `-m` the working folder is still the first that is looked in.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from blendrun.api import LinesFailedError, plan, read, run
    from blendrun.python_engine import Engine, RequestsFailedError

__all__ = ["Engine", "LinesFailedError", "RequestsFailedError", "__version__", "plan", "read", "run"]


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return import_module(f"blendrun.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'blendrun' has no attribute {name!r}")
    module = "python_engine" if name in ("Engine", "RequestsFailedError") else "api"
    return getattr(import_module(f"blendrun.{module}"), name)


def __dir__() -> list[str]:
    return [*__all__, "errors", "events"]
