"""Which card this machine has, by what the driver says."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import yaml

from blendrun.cost import detect
from blendrun.cost.detect import compute_capability, detect_hardware, own_hardware
from blendrun.cost.hardware import list_hardware
from blendrun.errors import UsageError
from blendrun.models.configs_folder import configs_folder


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(detect, "PROC_FOLDER", tmp_path / "proc")
    monkeypatch.setattr(detect, "KFD_FOLDER", tmp_path / "kfd")
    return tmp_path


def nvidia_smi(machine: Path, *names: str, status: int = 0) -> None:
    program = machine / "bin" / "nvidia-smi"
    lines = "".join(f"echo '{name}'\n" for name in names)
    program.write_text(f"#!/bin/sh\n{lines}exit {status}\n")
    program.chmod(0o755)


def test_a_calibrated_card_counts_on_the_machine_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert own_hardware() == detect_hardware()
    shipped = yaml.safe_load((configs_folder("hardware") / "cpu.yaml").read_text())
    card = tmp_path / "blendrun" / "hardware" / "this-machine.yaml"
    card.parent.mkdir(parents=True)
    card.write_text(yaml.safe_dump(shipped | {"host": platform.node()}))
    assert own_hardware() == "this-machine"
    card.write_text(yaml.safe_dump(shipped | {"host": "another"}))
    assert own_hardware() == detect_hardware()


def test_the_compute_capability_is_the_first_gpus(bare_machine: Path) -> None:
    assert compute_capability() is None
    nvidia_smi(bare_machine, "9.0", "8.6")
    assert compute_capability() == (9, 0)
    nvidia_smi(bare_machine, "[N/A]")
    assert compute_capability() is None


def test_a_machine_without_gpus_is_a_cpu() -> None:
    assert detect_hardware() == "cpu"


@pytest.mark.parametrize(
    ("product", "card"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100-PCIE-40GB", "a100-40g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100 80GB PCIe", "a100-80g"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_product_names(bare_machine: Path, product: str, card: str) -> None:
    nvidia_smi(bare_machine, product, product)
    assert detect_hardware() == card
    assert card in list_hardware()


@pytest.mark.parametrize("product", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 NVL", "Tesla T4", "NVIDIA L40"])
def test_an_unknown_gpu_is_named_and_not_guessed(bare_machine: Path, product: str) -> None:
    nvidia_smi(bare_machine, product)
    with pytest.raises(UsageError, match=f"has a {product}.*pass --hardware"):
        detect_hardware()


def test_gpus_of_several_kinds_are_not_averaged(bare_machine: Path) -> None:
    nvidia_smi(bare_machine, "NVIDIA L4", "NVIDIA H200")
    with pytest.raises(UsageError, match="several kinds"):
        detect_hardware()


def test_the_driver_is_asked_where_the_program_is_missing_or_fails(bare_machine: Path) -> None:
    folder = bare_machine / "proc" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert detect_hardware() == "h200"
    nvidia_smi(bare_machine, "NVIDIA-SMI has failed", status=9)
    assert detect_hardware() == "h200"


def test_amd_devices_count_where_they_have_a_card(bare_machine: Path) -> None:
    folder = bare_machine / "kfd" / "1"
    folder.mkdir(parents=True)
    (folder / "properties").write_text("simd_count 8\nvendor_id 4098\ndevice_id 5710\n")
    assert detect_hardware() == "cpu"
    (folder / "properties").write_text("simd_count 1216\nvendor_id 4098\ndevice_id 29857\n")
    assert detect_hardware() == "mi300x"
