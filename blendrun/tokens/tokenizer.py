"""The tokenizer of a model folder, with its chat template: from bodies to prompts, from prompts to ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blendrun.endpoints.base import Endpoint
from blendrun.tokens.chat import Media, conversation
from blendrun.tokens.encode import Encoder, Ids
from blendrun.tokens.template import ChatTemplate, RenderError

# Tokens counted for a part that is not text. The true number depends on the model's processor and the picture's size.
MEDIA_TOKENS = {"image": 1024, "audio": 512, "video": 4096}
# Stands for each of them. What tells media apart is `Prompts.root`, so the id need only be a valid one.
_MEDIA_ID = 0
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt before it is tokens: either `ids`, or `text` and `prefix`.

    special: whether the tokenizer's post-processor adds its special tokens to `text`.
    prefix: encoded on its own and put behind `text`, as SGLang does with an answer to be continued.
    media: what the text refers to, in order. Their tokens are an estimate, and stand before the text: pictures
        mostly come first in a prompt, and a shared picture should count as shared.
    """

    text: str = ""
    special: bool = False
    prefix: str = ""
    ids: Ids | None = None
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PromptTokenizer:
    """What SGLang would make of a request, without SGLang.

    template: None where the model has none, or one that does not compile; `no_template` says which.
    special_tokens: by name (`bos_token`, …), as templates read them.
    defaults: the engine's `default_chat_template_kwargs`.
    identity: 32 hex digits; equal where all ids are (but for templates with `uses_today`).
    """

    encoder: Encoder
    template: ChatTemplate | None
    no_template: str
    special_tokens: Mapping[str, str]
    defaults: Mapping[str, Any]
    identity: str

    def render(self, endpoint: Endpoint, body: Mapping[str, Any]) -> RenderedPrompt:
        """Make the prompt of a request that passed its endpoint's validator. Raises RenderError."""
        # The engine drops null fields before SGLang sees the body.
        body = {name: value for name, value in body.items() if value is not None}
        prompt = endpoint.plain_prompt(body)
        if prompt is not None:
            return RenderedPrompt(prompt, special=True) if isinstance(prompt, str) else _given(prompt)
        template = self.template
        if template is None:
            raise RenderError(self.no_template)
        talk = conversation(body, template.content_format, low_effort=template.low_effort, defaults=self.defaults)
        text = template.render(talk.messages, talk.tools, {**self.special_tokens, **talk.variables})
        return RenderedPrompt(text, prefix=talk.prefix, media=tuple(talk.media))

    def encode(self, prompts: Sequence[RenderedPrompt]) -> list[Ids]:
        """The ids of each prompt, i32. As `Encoder.encode`: mostly without the GIL, one thread at a time."""
        plain = [prompt.text for prompt in prompts if prompt.ids is None and not prompt.special]
        # A continued answer is encoded like a text of its own.
        special = [prompt.text for prompt in prompts if prompt.special] + [p.prefix for p in prompts if p.prefix]
        of_plain = dict(zip(plain, self.encoder.encode(plain, special=False), strict=True))
        of_special = dict(zip(special, self.encoder.encode(special, special=True), strict=True))
        return [
            self._assemble(prompt, of_special if prompt.special else of_plain, of_special.get(prompt.prefix))
            for prompt in prompts
        ]

    def decode(self, ids: Ids) -> str:
        """The text of `ids`, special tokens included."""
        return self.encoder.backend.decode(ids.tolist(), skip_special_tokens=False)

    def _assemble(self, prompt: RenderedPrompt, encoded: Mapping[str, Ids], prefix: Ids | None) -> Ids:
        ids = encoded[prompt.text] if prompt.ids is None else prompt.ids
        if not prompt.media and prefix is None:
            return ids
        pieces = [np.full(MEDIA_TOKENS[part.kind], _MEDIA_ID, np.int32) for part in prompt.media]
        pieces.append(ids)
        if prefix is not None:
            bos = self.encoder.backend.token_to_id(self.special_tokens.get("bos_token", ""))
            pieces.append(prefix[1:] if len(prefix) and prefix[0] == bos else prefix)
        return np.concatenate(pieces)


def _given(ids: Any) -> RenderedPrompt:
    valid = isinstance(ids, list) and all(isinstance(token, int) and 0 <= token <= _MAX_ID for token in ids)
    if not valid:
        raise RenderError("a prompt of token ids must be a list of whole numbers of 0 or more")
    return RenderedPrompt(ids=np.array(ids, dtype=np.int32))
