"""The command that adds an extra names the installation that it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_REQUIRES = (
    "Requires-Dist: numpy>=2.0\n"
    "Requires-Dist: sglang<0.6,>=0.5.17; extra == 'sglang'\n"
    "Requires-Dist: gguf>=0.10; extra == 'sglang'\n"
    "Requires-Dist: pyarrow>=18; extra == 'tables'\n"
)


def command(site: Path, origin: object) -> str:
    """What an installation says whose metadata has `origin` as direct_url.json; None for a package from an index."""
    metadata = site / "blendrun-9.9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: blendrun\nVersion: 9.9\n{_REQUIRES}")
    if origin is not None:
        (metadata / "direct_url.json").write_text(json.dumps(origin))
    code = "from blendrun.installed import install_command; print(install_command('sglang'))"
    root = Path(__file__).resolve().parents[1]
    env = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    installer, found, what = done.stdout.strip().partition(" install ")
    assert found and sys.executable in done.stdout and ("pip" in installer or "uv" in installer)
    return what.removeprefix(f"--python {sys.executable} ")


def test_a_checkout_that_is_developed_with_its_pinned_versions(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    (checkout / "constraints.txt").touch()
    origin = {"url": checkout.as_uri(), "dir_info": {"editable": True}}
    assert command(tmp_path / "site", origin) == f"-e '{checkout}[sglang]' -c '{checkout}/constraints.txt'"


def test_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "blendrun-9.9-py3-none-any.whl"
    wheel.touch()
    assert command(tmp_path / "site", {"url": wheel.as_uri(), "archive_info": {}}) == f"'{wheel}[sglang]'"


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        pytest.param(
            {"url": "https://host/o/b.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "'blendrun[sglang] @ git+https://host/o/b.git@abc'",
            id="a repository",
        ),
        pytest.param(
            {"url": "https://host/b-9.9.whl", "archive_info": {}},
            "'blendrun[sglang] @ https://host/b-9.9.whl'",
            id="an address",
        ),
        pytest.param(
            {"url": "file:///gone/b-9.9.whl", "archive_info": {}},
            "'sglang<0.6,>=0.5.17' 'gguf>=0.10'",
            id="a wheel that is gone",
        ),
        pytest.param(None, "'sglang<0.6,>=0.5.17' 'gguf>=0.10'", id="nobody says"),
    ],
)
def test_what_is_not_a_file_here(tmp_path: Path, origin: object, what: str) -> None:
    assert command(tmp_path, origin) == what
