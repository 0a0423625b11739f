"""A short body of a request for each url that a line may have."""

from __future__ import annotations

from typing import Any

GOOD_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/score": {"text_1": "Hi", "text_2": "Ho"},
    "/v1/rerank": {"query": "Hi", "documents": ["Ho"]},
    "/v1/classify": {"input": "Hi"},
    "/generate": {"text": "Hi"},
}
