"""What is released: one version everywhere, and a wheel that works by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from blendrun.models.cards import list_aliases
from blendrun.version import __version__
from tests.needs import needs

ROOT = Path(__file__).resolve().parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads(text("pyproject.toml"))["project"]["version"] == __version__
    assert yaml.safe_load(text("CITATION.cff"))["version"] == __version__
    assert f"image.version {__version__}\n" in text("scripts/slurm/blendrun.def")
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", text("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == __version__


def test_containers_are_built_on_the_pinned_sglang() -> None:
    (pinned,) = re.findall(r"^sglang==(\S+)$", text("constraints.txt"), re.MULTILINE)
    assert f"ARG SGLANG=v{pinned}\n" in text("Dockerfile")
    assert f"From: lmsysorg/sglang:v{pinned}\n" in text("scripts/slurm/blendrun.def")


@pytest.mark.parametrize("name", ["Dockerfile", "scripts/slurm/blendrun.def"])
def test_what_a_container_takes_from_the_checkout_is_enough_to_install(name: str) -> None:
    copied = set(re.findall(r"(?<![\w/])(pyproject\.toml|README\.md|LICENSE|configs|blendrun)(?= )", text(name)))
    project = tomllib.loads(text("pyproject.toml"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert copied >= needed | {*wheel["packages"], *wheel["force-include"]}
    ignored = text(".dockerignore").splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


@pytest.mark.slow
def test_a_wheel_brings_its_types_and_cards_and_works_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and ("No module named uv" in built.stderr or "hatchling" in built.stderr):
        pytest.skip(needs("uv and a package index", "make test, with a network"))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"blendrun-{__version__}-")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "site")
    assert {"blendrun/py.typed", f"blendrun-{__version__}.dist-info/licenses/LICENSE"} <= names
    code = "from blendrun.cli import main; main(['models'])"
    listed = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [name for name in list_aliases() if f"\n{name} " in listed.stdout] == list_aliases()
