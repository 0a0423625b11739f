"""Prompts with pictures through SGLang's own input processing, without an engine: asked on stdin, ids on stdout.

On stdin [{"folder", "given", "prompts": [[text, [data URL]]]}], given being what an engine gives the processor beside
pictures. The classes are those that SGLang picks for the architectures of `seeing_models`; LLaVA's with CLIP leaves a
picture's tokens to the model, whose method is called here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from array import array
from types import SimpleNamespace
from typing import Any

import orjson


def main() -> None:
    # As in the engine process: before SGLang is imported.
    from transformers import AutoConfig

    import blendrun.engine.cpu.lean  # noqa: F401

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    found = []
    for asked in orjson.loads(sys.stdin.buffer.read()):
        folder, prompts = asked["folder"], asked["prompts"]
        config: Any = AutoConfig.from_pretrained(folder)
        if getattr(config.vision_config, "model_type", "") == "clip_vision_model":
            found.append([_padded(config, folder, text, images) for text, images in prompts])
        else:
            found.append(loop.run_until_complete(_processed(config, asked)))
    print("IDS " + orjson.dumps(found).decode(), flush=True)  # noqa: T201  # the parent reads it
    # Its pools of threads and processes would be waited for.
    os._exit(0)


def _class(config: Any) -> Any:
    if config.architectures[0] == "Gemma3ForConditionalGeneration":
        from sglang.srt.multimodal.processors.gemma3 import Gemma3SGLangImageProcessor

        return Gemma3SGLangImageProcessor
    if getattr(config.vision_config, "model_type", "") == "pixtral":
        from sglang.srt.multimodal.processors.pixtral import PixtralProcessor

        return PixtralProcessor
    from sglang.srt.multimodal.processors.transformers_auto import TransformersAutoMultimodalProcessor

    return TransformersAutoMultimodalProcessor


async def _processed(config: Any, wanted: dict[str, Any]) -> list[list[int]]:
    from sglang.srt.runtime_context import publish
    from sglang.srt.server_args import ServerArgs
    from sglang.srt.utils.hf_transformers.processor import get_processor

    folder: str = wanted["folder"]
    arguments = ServerArgs(
        model_path=folder,
        device="cpu",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        mm_process_config={"image": wanted["given"]},
    )
    publish(arguments, role="tokenizer")
    processor = _class(config)(config, arguments, get_processor(folder), "default", skip_mm_pool=True)
    asked = SimpleNamespace(video_data=None, audio_data=None, modalities=["image"])
    made = []
    for text, images in wanted["prompts"]:
        output = await processor.process_mm_data_async(
            image_data=images, audio_data=None, input_text=text, request_obj=asked, max_req_input_len=100_000
        )
        made.append([int(token) for token in output.input_ids])
    return made


def _padded(config: Any, folder: str, text: str, images: list[str]) -> list[int]:
    """As the scheduler has it of one picture, which is all that SGLang takes."""
    from sglang.srt.models.llava import LlavaBaseForCausalLM
    from transformers import AutoTokenizer

    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    model = SimpleNamespace(
        _infer_image_aspect_ratio=lambda items: "square",
        image_feature_len=side * side,
        num_patches_per_side=side,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        config=config,
    )
    ids = array("q", AutoTokenizer.from_pretrained(folder)(text).input_ids)
    picture = SimpleNamespace(image_sizes=[(1, 1)], pad_value=config.image_token_index)
    return list(LlavaBaseForCausalLM.pad_input_ids(model, ids, SimpleNamespace(mm_items=[picture])))


if __name__ == "__main__":
    main()
