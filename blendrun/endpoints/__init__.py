"""The registry of endpoints: url -> validator, cost, runner, response shape."""

from __future__ import annotations

from blendrun.endpoints.base import Demand, Endpoint
from blendrun.endpoints.chat import ChatCompletions
from blendrun.endpoints.completions import Completions
from blendrun.endpoints.rules import Rules

__all__ = ["ENDPOINTS", "Demand", "Endpoint", "Rules"]

# The order is the on-disk code of a url in a Job's `endpoint` column: append only.
ENDPOINTS: dict[str, Endpoint] = {endpoint.url: endpoint for endpoint in (ChatCompletions(), Completions())}
