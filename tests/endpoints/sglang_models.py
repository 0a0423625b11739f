"""SGLang's request models and what its code reads of them, as text: importing them takes half a minute."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

# Modules that see a request on its way to the tokenizer manager.
_READERS = {
    "/v1/chat/completions": ("serving_chat", "chat_encoding", "chat_encoding_adapters", "serving_base", "utils"),
    "/v1/completions": ("serving_completions", "serving_base", "utils"),
    "/v1/embeddings": ("serving_embedding", "serving_base", "utils"),
    "/v1/score": ("serving_score", "serving_base", "utils"),
    "/v1/rerank": ("serving_rerank", "serving_base", "utils"),
    "/v1/classify": ("serving_classify", "serving_base", "utils"),
}


def fields_of(model: str) -> list[str]:
    """Names of a model's own fields."""
    body = _classes()[model].body
    names = [each.target.id for each in body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def attributes_read(url: str) -> set[str]:
    """Names of attributes that the code for an url reads of a request."""
    trees: list[ast.AST] = [ast.parse((_folder() / f"{name}.py").read_text()) for name in _READERS[url]]
    if url == "/v1/chat/completions":
        # It makes the sampling parameters itself.
        trees.append(_classes()["ChatCompletionRequest"])
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("request", "self"):
                found.add(node.attr)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "get_param")
        ):
            found |= {
                each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
            }
    return found


@cache
def _classes() -> dict[str, ast.ClassDef]:
    tree = ast.parse((_folder() / "protocol.py").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _folder() -> Path:
    package = importlib.util.find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        pytest.skip("sglang is not installed")
    return Path(package.submodule_search_locations[0]) / "srt/entrypoints/openai"
