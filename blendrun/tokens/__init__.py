"""From requests to prompts in tokens, exactly as the runtime makes them.

tokenizer = load_tokenizer(model.path)
tokenized = build_prompts(job, tokenizer, context_length=8192)
tokenized.prompts, tokenized.over_context, tokenized.messages
"""

from blendrun.tokens.base import Prompts
from blendrun.tokens.build import TokenizedJob, build_prompts, render_text
from blendrun.tokens.load import load_tokenizer
from blendrun.tokens.template import RenderError
from blendrun.tokens.tokenizer import MEDIA_TOKENS, PromptTokenizer

__all__ = [
    "MEDIA_TOKENS",
    "PromptTokenizer",
    "Prompts",
    "RenderError",
    "TokenizedJob",
    "build_prompts",
    "load_tokenizer",
    "render_text",
]
