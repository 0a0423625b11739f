"""The registry of other APIs by url."""

from __future__ import annotations

from blendrun.endpoints.apis.anthropic import Messages
from blendrun.endpoints.apis.base import Api
from blendrun.endpoints.apis.responses import Responses
from blendrun.endpoints.registry import ENDPOINTS

ANTHROPIC = Messages()
APIS: dict[str, Api] = {api.url: api for api in (Responses(), ANTHROPIC)}
# What a line's `url` may be.
URLS = (*ENDPOINTS, *APIS)
