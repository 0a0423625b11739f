"""/v1/classify."""

from __future__ import annotations

from typing import Any

from blendrun.endpoints.base import ServingPath, Usage
from blendrun.endpoints.inputs import InputsEndpoint, inputs_of, read_usage


class Classify(InputsEndpoint):
    """A class for each input, with the probability of each, by models with a classification head."""

    url = "/v1/classify"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_classify:OpenAIServingClassify",
        "sglang.srt.entrypoints.openai.protocol:ClassifyRequest",
        decodes=False,
    )
    answer_content = ("probs", (list,))

    def replay_body(self, body: dict[str, Any], text: str, usage: Usage, reason: str) -> dict[str, Any]:
        each = {"label": "LABEL_0", "probs": [1.0], "num_classes": 1}
        return {
            "id": "classify-replay",
            "object": "list",
            "created": 0,
            "model": body.get("model") or "default",
            "data": [{"index": place, **each} for place in range(len(inputs_of(body)))],
            "usage": read_usage(usage.prompt),
        }
