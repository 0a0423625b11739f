"""A real model that sees, and is small: Qwen2-VL's architecture and processor, random weights, the demo's tokenizer.

Two layers for pictures and two for tokens, hidden 64. A picture's tokens are squares of 28 pixels. Its answers are
noise that depends on the picture, and never end by themselves: give `max_tokens`.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from blendrun.models.resolve import resolve_model

SIDE = 28
# Those of this model that SGLang goes by, whatever its files say.
_SMALLEST, _LARGEST = 4 * SIDE * SIDE, 1280 * SIDE * SIDE
_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
# Qwen2-VL's own in short: a picture's place is one token between two.
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(seed: int, width: int, height: int, form: str = "PNG") -> bytes:
    """A picture of random pixels, the same each time."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def write_tiny_vision(folder: Path) -> Path:
    """Write the model to `folder`, the same each time, and return it. Imports torch."""
    import torch
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m", platform="cpu").path)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_TOKENS)})
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    start, end, image, video = (tokenizer.convert_tokens_to_ids(token) for token in _TOKENS)
    config = Qwen2VLConfig(
        text_config=_TEXT,
        vision_config=_VISION,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    torch.manual_seed(20261129)
    model = Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    Qwen2VLImageProcessor(min_pixels=_SMALLEST, max_pixels=_LARGEST).save_pretrained(folder)
    written = json.loads((folder / "preprocessor_config.json").read_text())
    assert written["size"] == {"shortest_edge": _SMALLEST, "longest_edge": _LARGEST}
    return folder


_TEXT: dict[str, Any] = {
    "vocab_size": 49160,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION: dict[str, Any] = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 64,
    "num_heads": 2,
    "mlp_ratio": 2,
    "patch_size": SIDE // 2,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "in_chans": 3,
}
