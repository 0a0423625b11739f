"""What all tests share: a user without cards, history or settings of their own."""

from __future__ import annotations

import os
import tempfile

import pytest

# Removed when the test process ends. Commands that tests start inherit it. The cache of models and tokens stays the
# user's: it is made once.
_home = tempfile.TemporaryDirectory(prefix="blendrun-home-")
os.environ["XDG_CONFIG_HOME"] = f"{_home.name}/config"
os.environ["XDG_DATA_HOME"] = f"{_home.name}/data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="Write what golden files are compared with.")
