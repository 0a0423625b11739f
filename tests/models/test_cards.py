"""A card says what a model costs, and its dimensions are checked against the publisher's own count."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.errors import InputMissingError, UsageError
from blendrun.models.cards import card_from_config, list_aliases, load_card, read_card
from blendrun.models.configs_folder import configs_folder

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}


@pytest.mark.parametrize("alias", list_aliases())
def test_counts_the_published_parameters(alias: str) -> None:
    card = load_card(alias)
    assert card.published_parameters is not None
    assert card.parameters_total == pytest.approx(card.published_parameters, rel=0.01)


@pytest.mark.parametrize("alias", list_aliases())
def test_every_card_names_where_its_weights_come_from(alias: str) -> None:
    card = load_card(alias)
    assert card.alias == alias
    assert card.source is not None and "/" in card.source.hub


def test_grouped_query_cache_of_llama_3_8b() -> None:
    card = load_card("llama-3-8b")
    assert card.kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2 == 131072
    assert card.kv_bytes_per_token(bytes_per_value=1) == 65536
    assert card.kv_bytes(1000) == 131_072_000


def test_full_attention_caches_every_head_of_llama_2_7b() -> None:
    assert load_card("llama-2-7b").kv_bytes_per_token() == 2 * 32 * 32 * 128 * 2


def test_latent_attention_of_deepseek_v3_caches_one_vector_a_layer() -> None:
    card = load_card("deepseek-v3")
    assert card.kv_bytes_per_token() == 61 * (512 + 64) * 2 == 70272
    assert card.parameters_active == pytest.approx(37e9, rel=0.02)


@pytest.mark.parametrize(
    ("alias", "active"), [("mixtral-8x7b", 12.9e9), ("qwen3-30b-a3b", 3.3e9), ("llama-3-8b", 8.03e9)]
)
def test_active_parameters_leave_out_the_experts_a_token_passes_by(alias: str, active: float) -> None:
    assert load_card(alias).parameters_active == pytest.approx(active, rel=0.02)


def test_layers_embedding_and_head_add_up() -> None:
    untied, tied = load_card("llama-3-8b"), load_card("smollm2-135m")
    assert untied.embedding_parameters == untied.head_parameters == 128256 * 4096
    assert untied.parameters_total == untied.layer_parameters_total + 2 * untied.head_parameters
    assert tied.parameters_total == tied.layer_parameters_total + tied.head_parameters
    assert untied.layer_parameters_active == untied.layer_parameters_total


def test_a_sliding_window_stops_growing() -> None:
    card = load_card("gemma-3-12b")
    per_layer = 2 * 8 * 256 * 2
    assert card.full_attention_layers == 8
    assert card.kv_bytes(1000) == 1000 * card.kv_bytes_per_token() == 48 * 1000 * per_layer
    assert card.kv_bytes(10_000) == (8 * 10_000 + 40 * 1024) * per_layer


def test_attention_arithmetic_of_one_pair_of_tokens() -> None:
    assert load_card("llama-3-8b").attention_flops_per_pair == 4 * 4096
    assert load_card("deepseek-v3").attention_flops_per_pair == 2 * 128 * (192 + 128)


def test_a_misspelt_alias_is_answered_with_close_ones() -> None:
    with pytest.raises(UsageError, match=r"did you mean llama-3-8b .*known aliases: deepseek-67b"):
        load_card("llama3-8b")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("layers: 30\n", ""), "`layers`"),
        (("layers: 30", "layers: thirty"), r"\$\.layers"),
        (("layers: 30", "layer: 30"), "unknown key `layer`"),
        (("  hub:", "  hug:"), r"unknown key `source\.hug`"),
        (("title:", "alias: other\ntitle:"), "key `alias`"),
        (("title: SmolLM2", "title: [SmolLM2"), "YAML"),
    ],
)
def test_a_wrong_card_is_refused_by_file_and_key(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    text = (configs_folder("models") / "smollm2-135m.yaml").read_text()
    path = tmp_path / "smollm2-135m.yaml"
    path.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=complaint) as caught:
        read_card(path)
    assert str(path) in str(caught.value)


def test_a_config_json_gives_the_same_counts_as_the_card() -> None:
    card, read = load_card("llama-3-8b"), card_from_config(LLAMA_3_8B, "mine")
    assert read.alias == "mine"
    assert read.head_dim == 128
    assert read.parameters_total == card.parameters_total
    assert read.kv_bytes_per_token() == card.kv_bytes_per_token()


def test_a_models_digest_is_the_same_by_alias_and_by_folder() -> None:
    alias, folder = load_card("llama-3-8b"), card_from_config(LLAMA_3_8B, "0123abc")
    assert alias.digest == folder.digest
    # Nor does the length of the context, or what it is trained for, change a step.
    assert card_from_config(LLAMA_3_8B | {"max_position_embeddings": 131072}, "long").digest == alias.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 31},
        {"num_key_value_heads": 4},
        {"vocab_size": 128258},
        {"tie_word_embeddings": True},
        {"sliding_window": 4096},
        {"architectures": ["Qwen3ForCausalLM"]},
        {"quantization_config": {"quant_method": "fp8"}},
    ],
)
def test_a_digest_tells_models_apart_whose_steps_differ(changes: dict[str, object]) -> None:
    assert card_from_config(LLAMA_3_8B | changes, "llama-3-8b").digest != load_card("llama-3-8b").digest


def test_a_digest_tells_quantisations_apart() -> None:
    found = [{"quant_method": "gptq", "bits": 4}, {"quant_method": "gptq", "bits": 8}, {"quant_method": "awq"}, {}]
    cards = [card_from_config(LLAMA_3_8B | {"quantization_config": each}, "mine") for each in found]
    assert [card.quantization for card in cards] == ["gptq 4", "gptq 8", "awq", None]
    assert len({card.digest for card in cards}) == 4


def test_a_digest_leaves_out_dimensions_that_nothing_uses() -> None:
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 14336}
    wide, narrow = (
        card_from_config(
            LLAMA_3_8B | experts | {"architectures": ["MixtralForCausalLM"], "intermediate_size": size}, "m"
        )
        for size in (1, 2)
    )
    assert wide.digest == narrow.digest


def test_a_config_json_of_experts_and_latent_attention() -> None:
    config = LLAMA_3_8B | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "first_k_dense_replace": 3,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "kv_lora_rank": 512,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_attention_heads": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 61,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
    }
    card, read = load_card("deepseek-v3"), card_from_config(config, "mine")
    assert (read.moe, read.mla) == (card.moe, card.mla)
    assert read.parameters_active == card.parameters_active


@pytest.mark.parametrize(
    ("extra", "full_layers"),
    [
        ({"sliding_window": 4096}, 0),
        ({"sliding_window": 4096, "use_sliding_window": False}, 32),
        ({"sliding_window": 512, "sliding_window_pattern": 4}, 8),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16),
        ({"sliding_window": 128, "layer_types": ["full_attention"] * 32}, 32),
        ({"sliding_window": None}, 32),
    ],
)
def test_how_configs_say_which_layers_slide(extra: dict[str, object], full_layers: int) -> None:
    assert card_from_config(LLAMA_3_8B | extra, "mine").full_attention_layers == full_layers


def test_the_text_part_of_a_multimodal_config_counts() -> None:
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA_3_8B}
    assert card_from_config(outer, "mine").layers == 32


def test_an_architecture_without_a_cost_model_is_refused() -> None:
    with pytest.raises(UsageError, match="MambaForCausalLM"):
        card_from_config(LLAMA_3_8B | {"architectures": ["MambaForCausalLM"]}, "mine")


def test_a_config_json_without_a_dimension_is_refused_by_key(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 8}')
    with pytest.raises(UsageError, match=r"config\.json: key '\w+' is missing"):
        card_from_config(path, "mine")


def test_a_kind_of_card_that_is_not_shipped() -> None:
    with pytest.raises(InputMissingError, match="configs/moddels"):
        configs_folder("moddels")
