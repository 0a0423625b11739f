"""Stages for pipelines of Ray Data: `blend` puts rows in the blended order, `Answers` has an engine answer them.

ds = blendrun.ray_data.blend(ds, model="llama-3-8b")
ds = ds.map_batches(Answers, fn_constructor_kwargs={"model": "llama-3-8b"}, batch_size=2048, concurrency=2, num_gpus=1)

A row is the body of an OpenAI request (columns `messages` or `prompt`, `max_tokens`, ...), or a batch line (columns
`body` and, where it is not chat, `url`); anything else is made one by `to_request`.
"""

from blendrun.ray_data.answers import Answers
from blendrun.ray_data.order import blend

__all__ = ["Answers", "blend"]
