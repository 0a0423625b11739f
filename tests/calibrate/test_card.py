"""The card that a calibration leaves is one that plans can load, and says where each number is from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from blendrun.calibrate.base import Rates
from blendrun.calibrate.card import card_path, check_writable, make_card, write_card
from blendrun.cost.base import HardwareCard
from blendrun.cost.hardware import list_hardware, load_hardware, user_hardware_folder
from blendrun.errors import OutputUnavailableError, UsageError
from tests.calibrate.known import calibration

COMMAND = "blendrun calibrate --model smollm2-135m"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "blendrun" / "hardware"


def made(name: str = "this-machine") -> HardwareCard:
    return make_card(name, calibration(), load_hardware("cpu"), COMMAND)


def test_what_is_written_is_what_is_loaded_by_name(own_folder: Path) -> None:
    path = card_path("this-machine")
    assert path == own_folder / "this-machine.yaml" == user_hardware_folder() / "this-machine.yaml"
    write_card(made(), path, calibration())
    assert load_hardware("this-machine") == made()
    assert "this-machine" in list_hardware()


def test_every_measured_figure_says_command_date_and_versions() -> None:
    card = made()
    for figure in (card.achieved_flops, card.achieved_bandwidth, card.memory):
        assert figure.origin == "measured"
        for part in (COMMAND, "2026-07-01", "sglang 0.5.23", "torch 2.14.1", "2 threads"):
            assert part in figure.source
    assert (card.kind, card.value_bytes) == ("cpu", 4)
    assert card.step is not None
    assert card.step.model == "smollm2-135m"


def test_what_was_measured_in_place_of_the_engines_own_is_said(own_folder: Path) -> None:
    why = "the engine's fa3 did not run here (ImportError: no sgl_kernel)"
    rates = Rates(7e14, 3e12, 2.8e12, 8e10, "NVIDIA H100 80GB HBM3", "triton, 128 x 2048 tokens", why)
    engine = (("decode attention", "fa3"), ("chunk", "8192"))
    found = calibration(platform="gpu", threads=None, rates=rates, engine=engine)
    card = make_card("node", found, load_hardware("h100-sxm"), COMMAND)
    assert card.device == "NVIDIA H100 80GB HBM3"
    assert card.achieved_bandwidth.source.endswith(f"decode attention (triton, 128 x 2048 tokens; {why})")
    write_card(card, card_path("node"), found)
    assert load_hardware("node") == card
    assert "torch 2.14.1; decode attention: fa3; chunk: 8192." in (own_folder / "node.yaml").read_text()


def test_a_card_of_an_earlier_version_is_read(own_folder: Path) -> None:
    """Without a digest of the model and without the device's name."""
    write_card(made(), card_path("mine"), calibration())
    content = yaml.safe_load((own_folder / "mine.yaml").read_text())
    del content["device"], content["step"]["digest"]
    (own_folder / "mine.yaml").write_text(yaml.safe_dump(content))
    assert load_hardware("mine") == dataclasses.replace(made(), name="mine")


def test_the_file_begins_with_date_versions_and_errors(own_folder: Path) -> None:
    write_card(made(), card_path("mine"), calibration())
    first, second = (own_folder / "mine.yaml").read_text().splitlines()[:2]
    assert "2026-07-01T12:00:00+00:00" in first
    assert "sglang 0.5.23, torch 2.14.1" in first
    assert second == "# fit error 2.0 % on average, 6.0 % at worst; held-out mix of 48 +3.0 %."


def test_a_known_peak_stays_and_a_passed_one_is_raised() -> None:
    slow, shipped = calibration(), load_hardware("cpu")
    assert make_card("a", slow, shipped, COMMAND).peak_flops == shipped.peak_flops
    assert make_card("a", slow, shipped, COMMAND).peak_bandwidth == shipped.peak_bandwidth
    rates = dataclasses.replace(slow.rates, flops=1e12, copy_bandwidth=5e10, attention_bandwidth=4e10)
    fast = make_card("a", calibration(rates=rates), shipped, COMMAND)
    assert (fast.peak_flops.value, fast.peak_flops.origin) == (1e12, "measured")
    assert (fast.peak_bandwidth.value, fast.achieved_bandwidth.value) == (5e10, 4e10)
    unknown = make_card("a", slow, None, COMMAND)
    assert unknown.peak_flops == unknown.achieved_flops


def test_the_users_own_card_wins_over_a_shipped_one() -> None:
    write_card(made("cpu"), card_path("cpu"), calibration())
    assert load_hardware("cpu").achieved_flops.origin == "measured"


def test_a_second_calibration_replaces_the_first_and_leaves_no_other_file(own_folder: Path) -> None:
    for flops in (1e11, 1.1e11):
        found = calibration(rates=dataclasses.replace(calibration().rates, flops=flops))
        write_card(make_card("mine", found, load_hardware("cpu"), COMMAND), card_path("mine"), found)
    assert load_hardware("mine").achieved_flops.value == 1.1e11
    assert [path.name for path in own_folder.iterdir()] == ["mine.yaml"]


def test_a_gpu_card_holds_16_bit_values() -> None:
    found = calibration(platform="gpu", threads=None)
    card = make_card("node", found, load_hardware("h100-sxm"), COMMAND)
    assert (card.kind, card.value_bytes) == ("gpu", 2)
    assert "threads" not in card.achieved_flops.source


@pytest.mark.parametrize("name", ["", "../up", "a/b", "mine.yaml", ".hidden", "two words"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        card_path(name)


def test_an_output_that_is_no_yaml_file_is_refused(tmp_path: Path) -> None:
    assert card_path("ignored", tmp_path / "node.yaml") == tmp_path / "node.yaml"
    with pytest.raises(UsageError, match=r"is a \.yaml file"):
        card_path("ignored", tmp_path / "node.json")


def test_a_folder_that_cannot_be_written_is_found_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.yaml").mkdir()
    for path in (tmp_path / "file" / "x.yaml", Path("/proc/none/x.yaml"), tmp_path / "folder.yaml"):
        with pytest.raises(OutputUnavailableError, match="give another file with -o"):
            check_writable(path)
    check_writable(tmp_path / "new" / "x.yaml")
    assert list((tmp_path / "new").iterdir()) == []
