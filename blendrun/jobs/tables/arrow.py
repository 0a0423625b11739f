"""pyarrow, which an extra brings: looked for when a Parquet file is read or written, not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from blendrun.errors import UsageError


def arrow(what: str) -> Any:
    """The module. what: that needs it, for the message. Raises UsageError where it is not installed."""
    return _loaded("pyarrow", what)


def parquet(what: str) -> Any:
    """`pyarrow.parquet`, as `arrow`."""
    return _loaded("pyarrow.parquet", what)


def _loaded(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"{what} needs pyarrow: pip install 'blendrun[tables]'") from error
