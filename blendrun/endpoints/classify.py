"""/v1/classify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import ServingPath, Usage, refuse
from blendrun.endpoints.inputs import InputsEndpoint, inputs_of, read_usage

# SGLang 0.5.23, serving_classify.py: in the place of an error, and what is left of one number, such as a reward.
_NO_CLASS = [1.0]


class Classify(InputsEndpoint):
    """A class for each input, with the probability of each, by models with a classification head."""

    url = "/v1/classify"
    serving = ServingPath(
        "sglang.srt.entrypoints.openai.serving_classify:OpenAIServingClassify",
        "sglang.srt.entrypoints.openai.protocol:ClassifyRequest",
        decodes=False,
    )
    answer_content = ("probs", (list,))

    def joined(self, body: Mapping[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Raises LineError for what SGLang gives where the head has no classes to choose from: a sure one."""
        found = super().joined(body, answers)
        if any(each["probs"] == _NO_CLASS for each in found["data"]):
            raise refuse("the model's head gives no classes: /v1/score with the texts as `items` has its numbers")
        return found

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
