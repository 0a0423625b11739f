"""`blendrun models` and `blendrun hardware`."""

from __future__ import annotations

import json
from pathlib import Path

from blendrun.cost.hardware import list_hardware, load_hardware
from blendrun.models.cards import list_aliases, load_card
from tests.command import blendrun, environment


def test_every_alias_is_listed_with_what_decides_whether_it_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen2.5-0.5B-Instruct"
    copy = folder / "snapshots" / "abc"
    copy.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (copy / name).write_text("{}")
    shown = blendrun("models", "--json", process=True, env=environment(HF_HUB_CACHE=str(tmp_path)))
    models = {each["alias"]: each for each in json.loads(shown.stdout)["models"]}
    assert list(models) == list_aliases()
    assert models["qwen2.5-0.5b"]["here"] == str(copy)
    assert models["qwen2.5-7b"]["here"] is None
    # The published count, in 16 bits; a quarter and a bit more where the experts are of four.
    assert round(models["qwen2.5-7b"]["gigabytes"]) == round(load_card("qwen2.5-7b").parameters_total * 2 / 1e9)
    assert 10 < models["gpt-oss-20b"]["gigabytes"] < 16


def test_the_list_of_models_fits_80_columns_and_says_whose_licence_is_which() -> None:
    lines = blendrun("models").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    for alias in list_aliases():
        card = load_card(alias)
        assert any(
            line.startswith(f"{alias} ") and line.endswith(card.source.hub if card.source else "") for line in lines
        )
        assert any(card.license in line for line in lines)


def test_every_card_is_listed_with_the_source_of_its_figures(tmp_path: Path) -> None:
    cards = {each["name"]: each for each in json.loads(blendrun("hardware", "--json").stdout)["cards"]}
    assert list(cards) == list_hardware()
    assert cards["h100-sxm"]["peak_flops"]["value"] == load_hardware("h100-sxm").peak_flops.value
    assert all(each["memory"]["source"] for each in cards.values())


def test_a_card_that_cannot_be_read_costs_a_sentence(tmp_path: Path) -> None:
    own = tmp_path / "blendrun" / "hardware"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("title: [")
    shown = blendrun("hardware", env=environment(XDG_CONFIG_HOME=str(tmp_path)))
    assert shown.returncode == 0
    assert "mine.yaml: cannot be read as YAML" in shown.stderr
    lines = shown.stdout.splitlines()
    assert any(line.startswith("h100-sxm ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_misspelt_name_points_to_the_lists(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"prompt_tokens": 5, "output_tokens": 5}\n')
    assert "`blendrun models`" in blendrun("plan", trace, "-m", "lama-3-8b").stderr
    assert "`blendrun hardware`" in blendrun("plan", trace, "-m", "llama-3-8b", "--hardware", "h300").stderr
