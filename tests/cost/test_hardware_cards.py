"""Hardware cards: what ships is sound, what a user writes is read or refused with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.cost.hardware import list_hardware, load_hardware, machine, match_hardware, user_hardware_folder
from blendrun.errors import InputMissingError, UsageError
from blendrun.models.configs_folder import configs_folder

CARD = """
title: Mine
kind: gpu
memory: {value: 1.0e+10, source: here, origin: measured}
peak_flops: {value: 2.0e+14, source: here, origin: datasheet}
peak_bandwidth: {value: 2.0e+12, source: here, origin: datasheet}
achieved_flops: {value: 1.0e+14, source: here, origin: measured}
achieved_bandwidth: {value: 1.5e+12, source: here, origin: measured}
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "blendrun" / "hardware"
    folder.mkdir(parents=True)
    return folder


def test_what_ships() -> None:
    shipped = "a100-40g a100-80g b200 cpu h100-pcie h100-sxm h200 l4 l40s mi300x rtx-4090"
    assert list_hardware() == shipped.split()


@pytest.mark.parametrize("name", sorted(path.stem for path in configs_folder("hardware").iterdir()))
def test_every_card_is_sound(name: str) -> None:
    card = load_hardware(name)
    assert card.name == name
    assert card.peak_flops.value >= card.achieved_flops.value > 0
    assert card.peak_bandwidth.value >= card.achieved_bandwidth.value > 0
    for figure in (card.memory, card.peak_flops, card.peak_bandwidth, card.achieved_flops, card.achieved_bandwidth):
        assert figure.source
        assert figure.origin in ("datasheet", "measured", "prior")
    # FLOP per byte: 2:4 sparse peaks and slips of a unit would stand out.
    assert 5 < card.peak_flops.value / card.peak_bandwidth.value < 450


def test_peak_rates_of_gpus_come_from_datasheets() -> None:
    gpus = [card for card in map(load_hardware, list_hardware()) if card.kind == "gpu"]
    assert {card.peak_flops.origin for card in gpus} == {card.peak_bandwidth.origin for card in gpus} == {"datasheet"}


def test_the_page_on_cards_says_what_they_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text(encoding="utf-8")
    for card in map(load_hardware, list_hardware()):
        flops, bandwidth = card.achieved_flops, card.achieved_bandwidth
        rates = (f"{rate.value / 1e12:.4g}, {rate.origin}" for rate in (flops, bandwidth))
        assert f"| `{card.name}` | {' | '.join(rates)} |" in page


def test_a_machine_sums_its_devices() -> None:
    card = load_hardware("a100-80g")
    two = machine(card, gpus=2, rates="peak")
    assert (two.flops, two.bandwidth, two.memory) == (624e12, 4.078e12, 2 * card.memory.value)
    assert machine(card).flops == card.achieved_flops.value
    assert (two.value_bytes, machine(load_hardware("cpu")).value_bytes) == (2, 4)


def test_impossible_machines_are_refused() -> None:
    with pytest.raises(UsageError, match="1 to 65,536"):
        machine(load_hardware("h200"), gpus=0)
    with pytest.raises(UsageError, match="counts as one device"):
        machine(load_hardware("cpu"), gpus=2)


def test_a_misspelt_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UsageError, match="did you mean h100-sxm"):
        load_hardware("h100sxm")


def test_the_users_own_card_wins(own_folder: Path) -> None:
    (own_folder / "h200.yaml").write_text(CARD)
    (own_folder / "mine.yaml").write_text(CARD)
    assert user_hardware_folder() == own_folder
    assert load_hardware("h200").title == "Mine"
    assert "mine" in list_hardware()


def test_a_device_is_matched_by_its_whole_name_and_a_users_card_first(own_folder: Path) -> None:
    assert match_hardware("H200") == "h200"
    assert match_hardware("H200 NVL") is None
    assert match_hardware("accelerator_type:A100") == "a100-80g"
    (own_folder / "mine.yaml").write_text(f"{CARD}matches: ['H200( NVL)?']\n")
    (own_folder / "wrong.yaml").write_text(f"{CARD}matches: ['H200(']\n")
    assert match_hardware("H200") == match_hardware("H200 NVL") == "mine"


def test_a_card_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(CARD)
    assert load_hardware(str(path)).name == "lab"
    with pytest.raises(InputMissingError, match="no hardware card at"):
        load_hardware(str(tmp_path / "nothing.yaml"))


def test_numbers_may_leave_out_the_sign_of_their_exponent(own_folder: Path) -> None:
    (own_folder / "mine.yaml").write_text(CARD.replace("1.0e+14", "1e14"))
    assert load_hardware("mine").achieved_flops.value == 1e14


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("title: Mine", "titel: Mine", "unknown key `titel`"),
        ("memory: {value", "memory: {valeu", r"unknown key `memory\.valeu`"),
        ("title: Mine\n", "", "title"),
        ("kind: gpu", "kind: tpu", "kind"),
        ("value: 1.0e+14", "value: fast", r"achieved_flops\.value"),
        ("value: 1.0e+14", "value: 1.0e+15", r"`achieved_flops\.value` 1e\+15 is above `peak_flops\.value` 2e\+14"),
        ("value: 1.0e+10", "value: -1", r"`memory\.value` must be a positive number"),
        ("value: 1.0e+10", "value: .nan", r"`memory\.value` must be a positive number"),
        ("source: here", "source: ' '", "must say where the number is from"),
        ("origin: measured", "origin: guessed", "origin"),
        ("title: Mine", "name: other\ntitle: Mine", "key `name`"),
        ("kind: gpu", "kind: gpu\nvalue_bytes: 3", "value_bytes"),
        ("kind: gpu", "kind: [", "cannot be read as YAML"),
        ("kind: gpu", "kind: gpu\nmatches: ['H100', 'A(']", r"`matches`: 'A\(' is no regular expression"),
        (CARD, "- a list", "must be a table of keys"),
    ],
)
def test_a_wrong_card_is_refused_by_file_and_key(own_folder: Path, old: str, new: str, complaint: str) -> None:
    assert old in CARD
    path = own_folder / "mine.yaml"
    path.write_text(CARD.replace(old, new, 1))
    with pytest.raises(UsageError, match=complaint) as refused:
        load_hardware("mine")
    assert str(path) in str(refused.value)


def test_figures_that_a_card_may_leave_out(own_folder: Path) -> None:
    (own_folder / "plain.yaml").write_text(CARD, encoding="utf-8")
    plain = load_hardware("plain")
    assert (plain.mixed_attention, plain.host_bandwidth) == (None, None)
    told = "mixed_attention: {value: 0.3, source: tried, origin: measured}\n"
    told += "host_bandwidth: {value: 3.2e+10, source: sheet, origin: datasheet}\n"
    (own_folder / "told.yaml").write_text(CARD + told, encoding="utf-8")
    card = load_hardware("told")
    assert card.mixed_attention is not None
    assert card.host_bandwidth is not None
    assert (card.mixed_attention.value, card.host_bandwidth.value) == (0.3, 3.2e10)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mixed_attention: {value: -0.1, source: tried, origin: measured}", "`mixed_attention` must be 0 or more"),
        ("host_bandwidth: {value: 0.0, source: sheet, origin: datasheet}", "`host_bandwidth` must be 1 or more"),
        ("host_bandwidth: {value: 1.0e+9, source: ' ', origin: datasheet}", "`host_bandwidth` must be 1 or more"),
        ("mixed_attention: {value: 0.1, sauce: here, origin: prior}", "unknown key `mixed_attention.sauce`"),
    ],
)
def test_such_figures_are_looked_at(own_folder: Path, line: str, said: str) -> None:
    (own_folder / "odd.yaml").write_text(CARD + line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        load_hardware("odd")


@pytest.mark.parametrize(
    ("said", "meant"), [("H100-SXM", "h100-sxm"), ("h100", "h100-sxm"), ("RTX 4090", "rtx-4090"), ("L40S", "l40s")]
)
def test_a_card_is_found_by_what_people_call_it(said: str, meant: str) -> None:
    assert load_hardware(said).name == meant
