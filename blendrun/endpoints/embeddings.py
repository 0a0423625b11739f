"""/v1/embeddings."""

from __future__ import annotations

import base64
import math
import struct
from functools import lru_cache
from typing import Any

from blendrun.endpoints.base import ServingPath, Usage
from blendrun.endpoints.fields import must_be
from blendrun.endpoints.inputs import InputsEndpoint, inputs_of, read_usage

_FORMATS = ("float", "base64")
_REPLAYED_NUMBERS, _MOST_REPLAYED = 8, 65_536


class Embeddings(InputsEndpoint):
    """One vector for each input."""

    url = "/v1/embeddings"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_embedding:OpenAIServingEmbedding",
        "sglang.srt.entrypoints.openai.protocol:EmbeddingRequest",
        decodes=False,
    )
    answer_content = ("embedding", (list, str))

    def validate(self, body: dict[str, Any]) -> None:
        super().validate(body)
        if (form := body.get("encoding_format")) is not None and form not in _FORMATS:
            raise must_be("encoding_format", '"float" or "base64"', form)
        size = body.get("dimensions")
        if size is not None and (type(size) is not int or size < 1):
            raise must_be("dimensions", "a whole number of 1 or more", size)

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        vector = placeholder(min(body.get("dimensions") or _REPLAYED_NUMBERS, _MOST_REPLAYED))
        numbers: list[float] | str = list(vector)
        if body.get("encoding_format") == "base64":
            numbers = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": numbers} for place in range(len(inputs_of(body)))
            ],
            "model": body.get("model") or "default",
            "usage": read_usage(usage.prompt),
        }


@lru_cache(maxsize=64)
def placeholder(size: int) -> tuple[float, ...]:
    """Numbers as long as a vector's are, of which none means anything."""
    return tuple(math.sin(place + 1) / math.sqrt(size) for place in range(size))
