"""pyarrow, which an extra brings: looked for when a Parquet file is read or written, not before."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from blendrun.errors import UsageError
from blendrun.installed import install_command


def arrow(what: str) -> Any:
    """The module. what: that needs it, for the message. Raises UsageError where it is not installed."""
    return _loaded("pyarrow", what)


def parquet(what: str) -> Any:
    """`pyarrow.parquet`, as `arrow`."""
    return _loaded("pyarrow.parquet", what)


def _loaded(name: str, what: str) -> Any:
    first = "pyarrow" not in sys.modules
    try:
        module = import_module(name)
        if first:
            # Its own allocator keeps what was freed: a hundred MiB beside a large job. Where somebody else has loaded
            # it, that is theirs to say.
            lib = import_module("pyarrow")
            lib.set_memory_pool(lib.system_memory_pool())
    except ImportError as error:
        raise UsageError(f"{what} needs pyarrow: {install_command('tables')}") from error
    return module
