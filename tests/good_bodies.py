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

# Those of the other APIs, too, which are validated apart.
BODIES_OF_ALL_URLS: dict[str, dict[str, Any]] = GOOD_BODIES | {
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"max_tokens": 9, **GOOD_BODIES["/v1/chat/completions"]},
}
