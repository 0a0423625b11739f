"""What modules load, found out in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


def loaded_by(package: str) -> set[str]:
    """Top-level modules that are there once every module of a package is imported."""
    done = subprocess.run([sys.executable, "-c", _ALL, package], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}
