"""Which card this machine has, by what the driver says."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import yaml

from blendrun.cost import detect, gpus
from blendrun.cost.detect import compute_capability, detect_hardware, own_hardware
from blendrun.cost.hardware import list_hardware
from blendrun.errors import UsageError
from blendrun.models.configs_folder import configs_folder

# As `nvidia-smi -L` prints them.
ONE_H200 = "GPU 0: NVIDIA H200 (UUID: GPU-a1f9c5b2-3c57-4a51-9c3e-2b1f0a9d7e61)"
L4_AND_H200 = """\
GPU 0: NVIDIA L4 (UUID: GPU-0f6e2f4e-7d1e-4b0c-8c7d-54c2f1f0a111)
GPU 1: NVIDIA H200 (UUID: GPU-a1f9c5b2-3c57-4a51-9c3e-2b1f0a9d7e61)
GPU 2: NVIDIA H200 (UUID: GPU-a1f9c5b2-88aa-4a51-9c3e-2b1f0a9d7e62)"""
SLICED = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-0a9c1f57-6d2b-11ee-b962-0242ac120002)"""
INFORMATION = "Model: \t\t {}\nIRQ:   \t\t 16\nGPU UUID: \t {}\nBus Type: \t PCIe\nDevice Minor: \t {}\n"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    # Programs of the machine are not seen, but for the shell that the one below is written in.
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(gpus, "PROC_FOLDER", tmp_path / "proc" / "gpus")
    monkeypatch.setattr(detect, "KFD_FOLDER", tmp_path / "kfd")
    monkeypatch.setattr(detect, "NVIDIA_NODES", (tmp_path / "nvidia0", tmp_path / "nvidiactl"))
    return tmp_path


def nvidia_smi(machine: Path, listed: str, capabilities: str = "", status: int = 0) -> None:
    """A program that answers as the driver's own does. listed: to -L. capabilities: to --query-gpu."""
    program = machine / "bin" / "nvidia-smi"
    cases = f"-L) echo '{listed}';;\n*uuid,compute_cap*) echo '{capabilities}';;\n*) exit 2;;"
    program.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\nexit {status}\n')
    program.chmod(0o755)


def listed(*products: str) -> str:
    return "\n".join(f"GPU {place}: {name} (UUID: GPU-{place:08d}-0000)" for place, name in enumerate(products))


def information(machine: Path, place: str, product: str, uuid: str = "GPU-1", minor: int = 0) -> None:
    folder = machine / "proc" / "gpus" / place
    folder.mkdir(parents=True)
    (folder / "information").write_text(INFORMATION.format(product, uuid, minor))


def calibrated(machine: Path, **changes: object) -> None:
    """A card that a calibration has left here."""
    shipped = yaml.safe_load((configs_folder("hardware") / "cpu.yaml").read_text())
    path = machine / "config" / "blendrun" / "hardware" / "this-machine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(shipped | {"host": platform.node()} | changes))


def test_a_calibrated_card_counts_on_the_machine_it_was_measured_on(bare_machine: Path) -> None:
    assert own_hardware() == detect_hardware()
    calibrated(bare_machine)
    assert own_hardware() == own_hardware("cpu") == "this-machine"
    calibrated(bare_machine, host="another")
    assert own_hardware() == detect_hardware()


def test_a_calibrated_card_counts_for_the_kind_of_device_it_was_measured_on(bare_machine: Path) -> None:
    nvidia_smi(bare_machine, ONE_H200)
    calibrated(bare_machine)
    assert own_hardware("gpu") == "h200", "figures of a CPU"
    for device, card in (("NVIDIA H200", "this-machine"), ("NVIDIA L4", "h200")):
        calibrated(bare_machine, kind="gpu", device=device)
        assert (own_hardware(), own_hardware("gpu"), own_hardware("cpu")) == (card, card, "cpu")


def test_a_calibrated_slice_counts_though_no_card_is_shipped(bare_machine: Path) -> None:
    nvidia_smi(bare_machine, SLICED)
    calibrated(bare_machine, kind="gpu", device="NVIDIA A100-SXM4-80GB MIG 3g.40gb")
    assert own_hardware("gpu") == "this-machine"


def test_the_compute_capability_is_that_of_the_first_gpu_in_use(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compute_capability() is None
    answers = "GPU-00000000-0000, 8.9\nGPU-00000001-0000, 9.0"
    nvidia_smi(bare_machine, listed("NVIDIA L4", "NVIDIA H200"), answers)
    assert compute_capability() == (8, 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-00000001-0000")
    assert compute_capability() == (9, 0)
    nvidia_smi(bare_machine, listed("NVIDIA L4"), "GPU-00000000-0000, [N/A]")
    assert compute_capability() is None


def test_a_machine_without_gpus_is_a_cpu() -> None:
    assert detect_hardware() == detect_hardware("cpu") == "cpu"


def test_an_engine_on_the_cpu_of_a_machine_with_a_gpu(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(bare_machine, ONE_H200)
    assert (detect_hardware("cpu"), detect_hardware()) == ("cpu", "h200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
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
    nvidia_smi(bare_machine, listed(product, product))
    assert detect_hardware() == card
    assert card in list_hardware()


@pytest.mark.parametrize(
    "product",
    [
        *("NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla T4", "NVIDIA L40"),
        *("NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", "NVIDIA H20", "NVIDIA B300 SXM6 AC"),
    ],
)
def test_an_unknown_gpu_is_named_and_not_guessed(bare_machine: Path, product: str) -> None:
    nvidia_smi(bare_machine, listed(product))
    with pytest.raises(UsageError, match=f"has a {product}.*pass --hardware"):
        detect_hardware()


def test_gpus_of_several_kinds_are_not_averaged(bare_machine: Path) -> None:
    nvidia_smi(bare_machine, L4_AND_H200)
    with pytest.raises(UsageError, match=r"several kinds \(NVIDIA H200, NVIDIA L4\)"):
        detect_hardware()


@pytest.mark.parametrize(
    ("named", "card"),
    [
        ("1,2", "h200"),
        ("0", "l4"),
        (" 2 , 1", "h200"),
        ("1,-1,0", "h200"),
        ("GPU-a1f9c5b2-3c57-4a51-9c3e-2b1f0a9d7e61", "h200"),
        ("GPU-a1f9c5b2-88", "h200"),
        ("GPU-0f", "l4"),
        ("", "cpu"),
        ("-1", "cpu"),
    ],
)
def test_only_what_is_visible_counts(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, named: str, card: str
) -> None:
    nvidia_smi(bare_machine, L4_AND_H200)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert detect_hardware() == card


@pytest.mark.parametrize("named", ["9", "GPU-a1f9c5b2", "GPU-ffff", "first"])
def test_a_variable_that_names_nothing_is_said(bare_machine: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    nvidia_smi(bare_machine, L4_AND_H200)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(UsageError, match=f"CUDA_VISIBLE_DEVICES={named} names no GPU"):
        detect_hardware()


def test_numbers_among_several_kinds_mean_what_cuda_makes_of_them(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(bare_machine, L4_AND_H200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UsageError, match=r"set CUDA_DEVICE_ORDER=PCI_BUS_ID.*or pass --hardware"):
        detect_hardware()
    nvidia_smi(bare_machine, listed("NVIDIA H200", "NVIDIA H200"))
    assert detect_hardware() == "h200"


@pytest.mark.parametrize(
    ("named", "profile"),
    [
        (None, "3g.40gb"),
        ("0", "3g.40gb"),
        ("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", r"1g\.10gb\+me"),
        ("MIG-GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77/1/0", "MIG-GPU-5d5ba0d6"),
        ("GPU-5d5b", "3g.40gb"),
    ],
)
def test_a_slice_is_not_planned_with_the_figures_of_the_whole(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, profile: str
) -> None:
    nvidia_smi(bare_machine, SLICED)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(UsageError, match=rf"MIG slice \({profile}.* of a NVIDIA A100-SXM4-80GB\).*pass --hardware"):
        detect_hardware()


def test_a_whole_gpu_beside_a_sliced_one(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(bare_machine, SLICED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert detect_hardware() == "a100-80g"


def test_the_driver_is_asked_where_the_program_is_missing_or_fails(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information(bare_machine, "0000:01:00.0", "NVIDIA H200")
    assert detect_hardware() == "h200"
    nvidia_smi(bare_machine, "NVIDIA-SMI has failed", status=9)
    assert detect_hardware() == "h200"
    information(bare_machine, "0000:02:00.0", "NVIDIA L4", "GPU-2", 1)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    for named, card in (("1", "l4"), ("GPU-1", "h200")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert detect_hardware() == card


def test_the_driver_shows_that_a_gpu_is_sliced(bare_machine: Path) -> None:
    information(bare_machine, "0000:01:00.0", "NVIDIA H100 80GB HBM3", minor=3)
    assert detect_hardware() == "h100-sxm"
    (bare_machine / "proc" / "capabilities" / "gpu3" / "mig" / "gi7").mkdir(parents=True)
    with pytest.raises(UsageError, match="MIG slice"):
        detect_hardware()


@pytest.mark.parametrize("program", [False, True])
def test_a_gpu_that_nothing_names_is_no_cpu(bare_machine: Path, monkeypatch: pytest.MonkeyPatch, program: bool) -> None:
    """A container that has the device, and neither the program nor the driver's files."""
    if program:
        nvidia_smi(bare_machine, "Failed to initialize NVML: Unknown Error", status=255)
    for ask in (detect_hardware, own_hardware):
        with pytest.raises(UsageError, match=r"neither nvidia-smi nor .* pass --hardware"):
            ask("gpu")
        assert ask() == "cpu"
    (bare_machine / "nvidiactl").touch()
    with pytest.raises(UsageError, match="neither nvidia-smi nor"):
        own_hardware()
    assert own_hardware("cpu") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert own_hardware() == "cpu"


def test_amd_devices_count_where_they_have_a_card(bare_machine: Path) -> None:
    folder = bare_machine / "kfd" / "1"
    folder.mkdir(parents=True)
    (folder / "properties").write_text("simd_count 8\nvendor_id 4098\ndevice_id 5710\n")
    assert detect_hardware() == "cpu"
    (folder / "properties").write_text("simd_count 1216\nvendor_id 4098\ndevice_id 29857\n")
    assert detect_hardware() == "mi300x"
