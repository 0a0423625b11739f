"""The registry of endpoints by url; each says of itself what its requests need and how its answers look."""

from __future__ import annotations

from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.chat import ChatCompletions
from blendrun.endpoints.completions import Completions

# The order is the on-disk code of a url in a Job's `endpoint` column: append only.
_ENDPOINTS: tuple[Endpoint, ...] = (
    ChatCompletions(),
    Completions(),
)
ENDPOINTS = {endpoint.url: endpoint for endpoint in _ENDPOINTS}
