"""Servers that already run, as engines: anything that speaks OpenAI's API."""

from __future__ import annotations

from blendrun.engine.http.engine import HttpEngine
from blendrun.engine.http.settings import HttpSettings, parse_servers

__all__ = ["HttpEngine", "HttpSettings", "parse_servers"]
