"""Model folders of several families that see, without weights: real processors, made of their classes, and one
tokenizer of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of all: before and behind a message, and what the tokenizer puts in front of a text.
_MARKS = ("<s>", "<|im_start|>", "<|im_end|>")
_IDEFICS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
_GEMMA = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
_INTERN = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_PIXTRAL = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}


def _template(place: str, start: str = "") -> str:
    return (
        f"{start}{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        f"{place}{{% elif 'text' in part %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _tokenizer(folder: Path, named: dict[str, str], template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate((*letters, "\u010a\u010a"))}
    # Two line ends are one token: what a processor writes beside a picture changes how the text there is cut.
    backend = Tokenizer(models.BPE(vocabulary, [("\u010a", "\u010a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*_MARKS, *named.values()])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        extra_special_tokens=named,
        chat_template=template,
    )
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _config(folder: Path, architecture: str, model_type: str, **fields: Any) -> None:
    written = {"architectures": [architecture], "model_type": model_type, **fields}
    (folder / "config.json").write_text(json.dumps(written))


def _gemma3(folder: Path) -> None:
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    tokenizer = _tokenizer(folder, _GEMMA, _template("<start_of_image>", "<s>"))
    Gemma3Processor(Gemma3ImageProcessor(), tokenizer, image_seq_length=16).save_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _GEMMA.items()}
    numbers = {"boi_token_index": ids["boi_token"], "eoi_token_index": ids["eoi_token"]}
    numbers |= {"image_token_index": ids["image_token"]}
    _config(folder, "Gemma3ForConditionalGeneration", "gemma3", **numbers)


def _pixtral(folder: Path) -> None:
    from transformers import PixtralImageProcessor, PixtralProcessor

    tokenizer = _tokenizer(folder, _PIXTRAL, _template("[IMG]"))
    images = PixtralImageProcessor(patch_size=16, size={"longest_edge": 512})
    PixtralProcessor(images, tokenizer, patch_size=16).save_pretrained(folder)
    seen_by = {"model_type": "pixtral", "image_size": 512, "patch_size": 16}
    number = tokenizer.convert_tokens_to_ids("[IMG]")
    _config(folder, "LlavaForConditionalGeneration", "llava", image_token_index=number, vision_config=seen_by)


def _llava(folder: Path) -> None:
    from transformers import CLIPImageProcessor, LlavaProcessor

    tokenizer = _tokenizer(folder, {"image_token": "<image>"}, _template("<image>\n"))
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=56)
    LlavaProcessor(images, tokenizer, 14, "default", num_additional_image_tokens=1).save_pretrained(folder)
    seen_by = {"model_type": "clip_vision_model", "image_size": 56, "patch_size": 14}
    number = tokenizer.convert_tokens_to_ids("<image>")
    _config(folder, "LlavaForConditionalGeneration", "llava", image_token_index=number, vision_config=seen_by)


def _idefics3(folder: Path) -> None:
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    tokenizer = _tokenizer(folder, _IDEFICS, _template("<image>", "<s>"))
    images = Idefics3ImageProcessor(size={"longest_edge": 256}, max_image_size={"longest_edge": 64})
    Idefics3Processor(images, tokenizer, image_seq_len=9).save_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids("<image>")
    _config(folder, "Idefics3ForConditionalGeneration", "idefics3", image_token_id=number)


def _internvl(folder: Path) -> None:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    tokenizer = _tokenizer(folder, _INTERN, _template("<IMG_CONTEXT>\n"))
    images = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=6)
    InternVLProcessor(images, tokenizer, InternVLVideoProcessor(), image_seq_length=4).save_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    _config(folder, "InternVLForConditionalGeneration", "internvl", image_token_id=number)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "gemma3": _gemma3,
    "pixtral": _pixtral,
    "llava": _llava,
    "idefics3": _idefics3,
    "internvl": _internvl,
}


def write_seeing_model(folder: Path, family: str) -> Path:
    """Write the folder of a model of FAMILIES, without its weights, and return it. Imports torch."""
    folder.mkdir(parents=True)
    FAMILIES[family](folder)
    return folder
