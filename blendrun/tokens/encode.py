"""Texts to ids with the tokenizers library, each piece of text that comes again encoded once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer

Ids = NDArray[np.int32]
# One text, or two that the post-processor puts together.
Text = str | tuple[str, str]

# Characters of pieces remembered, about 60 MB with their ids. When it is full, all is forgotten: what comes often is
# soon back, and no book-keeping is needed.
_REMEMBERED_CHARACTERS = 16 << 20
# These treat a piece alike wherever it stands in a text. Metaspace does not.
_LOCAL_PRE_TOKENIZERS = frozenset(
    (
        "ByteLevel",
        "Split",
        "Digits",
        "Punctuation",
        "Whitespace",
        "WhitespaceSplit",
        "BertPreTokenizer",
        "CharDelimiterSplit",
        "UnicodeScripts",
    )
)


class Encoder:
    """A tokenizer that knows where it may cut.

    A tokenizer first cuts a text at its added tokens, and what stands between them is encoded without regard to the
    rest. So a prompt can be cut at the tokens of its chat template, and a system message or a role's header that
    thousands of prompts share need be encoded only once. (SGLang cuts at the same places, to encode in parallel:
    parallel_prompt_encode.py.) Where the tokenizer is of a kind for which this may not hold, texts are not cut.
    """

    def __init__(self, backend: Tokenizer, cut_candidates: Iterable[str] = ()) -> None:
        """cut_candidates: added tokens to cut at; those at which it is not safe are left out."""
        self.backend = backend
        self._cuts = cut_tokens(backend, cut_candidates)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, self._cuts))})") if self._cuts else None
        self._known: dict[Text, Ids] = {}
        self._characters = 0

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows, added ones too."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[Text], *, special: bool) -> list[Ids]:
        """The ids of each text, i32. Equal texts may share one array.

        special: let the post-processor add the tokenizer's special tokens; without, texts come alone.

        Without the GIL for nearly all of its time, on all cores. To be called from one thread at a time.
        """
        if special or self._pattern is None:
            encoded = dict.fromkeys(texts, _NOTHING)
            self._encode(encoded, special)
            return [encoded[text] for text in texts]
        cut = [self._pattern.split(text) for text in texts if isinstance(text, str)]
        pieces: dict[Text, Ids] = {piece: self._known.get(piece, _NOTHING) for text in cut for piece in text if piece}
        self._encode(pieces, special)
        self._remember(pieces)
        pieces[""] = _NOTHING
        return [np.concatenate([pieces[piece] for piece in text]) for text in cut]

    def _encode(self, ids: dict[Text, Ids], special: bool) -> None:
        """Fill in the ids of texts that have none yet."""
        texts = [text for text, known in ids.items() if known is _NOTHING]
        if texts:
            encodings = self.backend.encode_batch_fast(texts, add_special_tokens=special)
            ids.update((text, np.array(one.ids, dtype=np.int32)) for text, one in zip(texts, encodings, strict=True))

    def _remember(self, pieces: Mapping[Text, Ids]) -> None:
        new = {piece: ids for piece, ids in pieces.items() if piece not in self._known}
        added = sum(map(len, new))
        if self._characters + added > _REMEMBERED_CHARACTERS:
            self._known.clear()
            self._characters = 0
        self._known.update(new)
        self._characters += added


_NOTHING = np.empty(0, np.int32)


def cut_tokens(backend: Tokenizer, candidates: Iterable[str]) -> list[str]:
    """Those of `candidates` at which a text may be cut without changing its ids, longest first."""
    added = backend.get_added_tokens_decoder().values()
    local = _is_local(_state(backend.pre_tokenizer)) and _keeps_order(_state(backend.post_processor))
    if not local or any(token.lstrip or token.rstrip or token.single_word for token in added):
        return []
    contents = [token.content for token in added if token.content]
    raw = {token.content for token in added if token.content and not token.normalized}
    safe = {token for token in candidates if token in raw and _stands_alone(token, contents)}
    return sorted(safe, key=lambda token: (-len(token), token))


def _state(component: Any) -> Any:
    """A part of a tokenizer as tokenizer.json has it: its pickled state is that JSON."""
    return None if component is None else orjson.loads(component.__getstate__())


def _is_local(pre_tokenizer: Any) -> bool:
    if pre_tokenizer is None:
        return True
    if pre_tokenizer.get("type") == "Sequence":
        return all(map(_is_local, pre_tokenizer.get("pretokenizers", [])))
    return pre_tokenizer.get("type") in _LOCAL_PRE_TOKENIZERS


def _keeps_order(post_processor: Any) -> bool:
    """Whether, without special tokens, it leaves the ids as they are."""
    if post_processor is None:
        return True
    kind = post_processor.get("type")
    if kind == "Sequence":
        return all(map(_keeps_order, post_processor.get("processors", [])))
    if kind == "TemplateProcessing":
        texts = [item["Sequence"]["id"] for item in post_processor.get("single", []) if "Sequence" in item]
        return texts == ["A"]
    return kind in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _stands_alone(token: str, added: Collection[str]) -> bool:
    """Whether every occurrence in a text is a match: no added token contains it, none can end inside it."""
    beginnings = tuple(token[:length] for length in range(1, len(token) + 1))
    return not any((other != token and token in other) or other[1:].endswith(beginnings) for other in added)
