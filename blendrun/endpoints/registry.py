"""The registry of endpoints by url; each says of itself what its requests need and how its answers look."""

from __future__ import annotations

from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.chat import ChatCompletions
from blendrun.endpoints.classify import Classify
from blendrun.endpoints.completions import Completions
from blendrun.endpoints.embeddings import Embeddings
from blendrun.endpoints.generate import Generate
from blendrun.endpoints.rerank import Rerank
from blendrun.endpoints.score import Score

# The order is the on-disk code of a url in a Job's `endpoint` column: append only.
_ENDPOINTS: tuple[Endpoint, ...] = (
    ChatCompletions(),
    Completions(),
    Embeddings(),
    Score(),
    Rerank(),
    Classify(),
    Generate(),
)
ENDPOINTS = {endpoint.url: endpoint for endpoint in _ENDPOINTS}
