"""A GGUF file of two layers: what a converter reads of one is all there, and reading it takes no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 128, 4, 2, 2
HEAD_DIM = HIDDEN // HEADS
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
END = 2


def write_tiny_gguf(path: Path) -> Path:
    """Write the file, with a byte-level tokenizer of three control tokens, 256 bytes and one merge."""
    from gguf import GGUFWriter, TokenType

    tokens = [*CONTROL, *sorted(ByteLevel.alphabet()), "he"]
    file = GGUFWriter(path, "llama")
    file.add_name("tiny")
    file.add_block_count(LAYERS)
    file.add_context_length(512)
    file.add_embedding_length(HIDDEN)
    file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS)
    file.add_head_count_kv(KV_HEADS)
    file.add_rope_freq_base(10_000.0)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_vocab_size(len(tokens))
    file.add_rope_dimension_count(HEAD_DIM)
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("smollm")
    file.add_token_list(tokens)
    kinds = [TokenType.CONTROL] * len(CONTROL) + [TokenType.NORMAL] * (len(tokens) - len(CONTROL))
    file.add_token_types(kinds)
    file.add_token_merges(["h e"])
    file.add_bos_token_id(1)
    file.add_eos_token_id(END)
    file.add_unk_token_id(0)
    file.add_pad_token_id(END)
    file.add_chat_template(TEMPLATE)
    draw = np.random.default_rng(7)
    for name, shape in _shapes(len(tokens)).items():
        file.add_tensor(name, draw.standard_normal(shape, dtype=np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Tensors by GGUF's names; matrices as (out, in)."""
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        found |= {
            f"{block}.attn_norm.weight": (HIDDEN,),
            f"{block}.ffn_down.weight": (HIDDEN, INNER),
            f"{block}.ffn_gate.weight": (INNER, HIDDEN),
            f"{block}.ffn_up.weight": (INNER, HIDDEN),
            f"{block}.ffn_norm.weight": (HIDDEN,),
            f"{block}.attn_k.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{block}.attn_output.weight": (HIDDEN, HIDDEN),
            f"{block}.attn_q.weight": (HIDDEN, HIDDEN),
            f"{block}.attn_v.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        }
    return found
