"""The tokenizer of a model folder, with its chat template: from bodies to prompts, from prompts to ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from blendrun.endpoints.base import Endpoint, Pair, PlainPrompt
from blendrun.tokens.chat import Media, conversation
from blendrun.tokens.encode import Encoder, Ids, Text
from blendrun.tokens.pictures import Picture, PictureRule, pictured
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
    pair: a text that is read with `text`, and that the post-processor puts behind it.
    prefix: encoded on its own and put behind `text`, as SGLang does with an answer to be continued.
    parts: prompts of one line that are read each by itself; nothing else is set then.
    pictures: what stands in the places of tokens `mark_id` in the text, where that is known of all media.
    guessed: whether the runtime may count those pictures otherwise than their processor does.
    media: what the text refers to, in order, otherwise. Their tokens are an estimate, and stand before the text:
        pictures mostly come first in a prompt, and a shared picture should count as shared.
    """

    text: str = ""
    special: bool = False
    prefix: str = ""
    ids: Ids | None = None
    media: tuple[Media, ...] = ()
    pictures: tuple[Picture, ...] = ()
    mark_id: int = 0
    guessed: bool = False
    parts: tuple[RenderedPrompt, ...] = ()
    pair: str = ""

    @property
    def estimated(self) -> bool:
        """Whether the tokens of its media may be others."""
        return self.guessed or bool(self.media)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A prompt in tokens. ids: of several parts one after the other; of a part that begins like the one before it, as
    the items of a score do, only what the engine has not cached. longest: tokens of the longest part.
    parts, first, common: as `Parts` has them.
    """

    ids: Ids
    longest: int
    parts: int = 1
    first: int = 0
    common: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PromptTokenizer:
    """What SGLang would make of a request, without SGLang.

    template: None where the model has none, or one that does not compile; `no_template` says which.
    special_tokens: by name (`bos_token`, …), as templates read them.
    defaults: the engine's `default_chat_template_kwargs`.
    identity: 32 hex digits; equal where all ids are (but for templates with `uses_today`).
    picture_rule: what pictures become in a prompt, where that is known.
    shares: whether the engine keeps what it has computed, for prompts that begin alike.
    """

    encoder: Encoder
    template: ChatTemplate | None
    no_template: str
    special_tokens: Mapping[str, str]
    defaults: Mapping[str, Any]
    identity: str
    picture_rule: PictureRule | None = None
    shares: bool = True

    def render(self, endpoint: Endpoint, body: Mapping[str, Any], files: Path | None = None) -> RenderedPrompt:
        """Make the prompt of a request that passed its endpoint's validator. Raises RenderError.

        files: the folder below which pictures may be read that a line names.
        """
        # The engine drops null fields before SGLang sees the body.
        body = {name: value for name, value in body.items() if value is not None}
        if plain := endpoint.prompts(body):
            parts = tuple(map(self._plain, plain))
            return parts[0] if len(parts) == 1 else RenderedPrompt(parts=parts)
        template = self.template
        if template is None:
            raise RenderError(self.no_template)
        talk = conversation(body, template.content_format, low_effort=template.low_effort, defaults=self.defaults)
        text = template.render(talk.messages, talk.tools, {**self.special_tokens, **talk.variables})
        media = tuple(talk.media)
        if media and self.picture_rule is not None:
            seen = pictured(self.picture_rule, media, text, body, files)
            if seen is not None:
                return RenderedPrompt(
                    seen.text,
                    seen.special,
                    talk.prefix,
                    pictures=seen.pictures,
                    mark_id=seen.mark_id,
                    guessed=not seen.sure,
                )
        return RenderedPrompt(text, prefix=talk.prefix, media=media)

    def _plain(self, prompt: PlainPrompt) -> RenderedPrompt:
        if isinstance(prompt, str):
            return RenderedPrompt(prompt, special=True)
        if not isinstance(prompt, Pair):
            return _given(prompt)
        if self.template is None or not self.template.reranks:
            return RenderedPrompt(prompt.query, special=True, pair=prompt.document)
        texts = [{"role": "user", "content": text} for text in (prompt.query, prompt.document)]
        instruct = {"instruct": prompt.instruct} if prompt.instruct else {}
        return RenderedPrompt(self.template.render(texts, None, {**self.special_tokens, **instruct}), special=True)

    def encode_all(self, prompts: Sequence[RenderedPrompt]) -> list[EncodedPrompt]:
        """Each prompt in tokens, with all of its parts."""
        flat = [part for prompt in prompts for part in prompt.parts or (prompt,)]
        encoded = iter(self.encode(flat))
        found = []
        for prompt in prompts:
            own = [next(encoded) for _ in prompt.parts or (prompt,)]
            found.append(EncodedPrompt(own[0], len(own[0])) if len(own) == 1 else _in_turn(own, self.shares))
        return found

    def encode(self, prompts: Sequence[RenderedPrompt]) -> list[Ids]:
        """The ids of prompts without parts, i32. As `Encoder.encode`: mostly without the GIL, one thread at once."""
        plain = [prompt.text for prompt in prompts if prompt.ids is None and not prompt.special]
        # A continued answer is encoded like a text of its own.
        special: list[Text] = [_text(prompt) for prompt in prompts if prompt.special]
        special += [prompt.prefix for prompt in prompts if prompt.prefix]
        of_plain: dict[Text, Ids] = dict(zip(plain, self.encoder.encode(plain, special=False), strict=True))
        of_special = dict(zip(special, self.encoder.encode(special, special=True), strict=True))
        return [
            self._assemble(prompt, of_special if prompt.special else of_plain, of_special.get(prompt.prefix))
            for prompt in prompts
        ]

    def decode(self, ids: Ids) -> str:
        """The text of `ids`, special tokens included."""
        return self.encoder.backend.decode(ids.tolist(), skip_special_tokens=False)

    def _assemble(self, prompt: RenderedPrompt, encoded: Mapping[Text, Ids], prefix: Ids | None) -> Ids:
        ids = encoded[_text(prompt)] if prompt.ids is None else prompt.ids
        if prompt.pictures:
            ids = _with_pictures(ids, prompt.pictures, prompt.mark_id)
        if not prompt.media and prefix is None:
            return ids
        pieces = [np.full(MEDIA_TOKENS[part.kind], _MEDIA_ID, np.int32) for part in prompt.media]
        pieces.append(ids)
        if prefix is not None:
            bos = self.encoder.backend.token_to_id(self.special_tokens.get("bos_token", ""))
            pieces.append(prefix[1:] if len(prefix) and prefix[0] == bos else prefix)
        return np.concatenate(pieces)


def _in_turn(ids: Sequence[Ids], shares: bool) -> EncodedPrompt:
    """Parts as the engine computes them. shares: whether it keeps what it has computed."""
    longest, first = max(map(len, ids)), len(ids[0])
    if not shares:
        return EncodedPrompt(np.concatenate(ids), longest, len(ids), first)
    behind = [_behind(before, own) for before, own in pairwise(ids)]
    return EncodedPrompt(np.concatenate([ids[0], *behind]), longest, len(ids), first, len(ids[1]) - len(behind[0]))


def _behind(before: Ids, ids: Ids) -> Ids:
    """`ids` without what `before` begins with, too; of which the last is computed in any case."""
    most = max(0, min(len(before), len(ids) - 1))
    differ = np.flatnonzero(before[:most] != ids[:most])
    return ids[differ[0] if len(differ) else most :]


def _with_pictures(ids: Ids, pictures: Sequence[Picture], mark: int) -> Ids:
    """Each token `mark` replaced by a run of a picture's tokens; pictures in front where they have no places."""
    runs = [run for picture in pictures for run in picture.runs]
    own = [picture.stand_in for picture in pictures for _ in picture.runs]
    (places,) = np.nonzero(ids == mark)
    if len(places) != len(runs):
        return np.concatenate([np.repeat(np.array(own, np.int32), runs), ids])
    counts, told = np.ones(len(ids), dtype=np.int64), ids.copy()
    counts[places] = runs
    told[places] = own
    return np.repeat(told, counts)


def _text(prompt: RenderedPrompt) -> Text:
    """As the encoder takes it: a text, or two that the post-processor puts together."""
    return (prompt.text, prompt.pair) if prompt.pair else prompt.text


def _given(ids: Any) -> RenderedPrompt:
    valid = isinstance(ids, list) and all(isinstance(token, int) and 0 <= token <= _MAX_ID for token in ids)
    if not valid:
        raise RenderError("a prompt of token ids must be a list of whole numbers of 0 or more")
    return RenderedPrompt(ids=np.array(ids, dtype=np.int32))
