"""Find and read a tokenizer's files: tokenizer.json, its configuration and the chat template beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from blendrun.errors import InputMissingError
from blendrun.tokens.encode import Encoder
from blendrun.tokens.picture_rules import picture_rule
from blendrun.tokens.template import ChatTemplate, is_reranker, reads_tools
from blendrun.tokens.tokenizer import PromptTokenizer

_FILE = "tokenizer.json"
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Vocabularies that only their own libraries read.
_OTHER_FORMATS = ("tokenizer.model", "*.tiktoken", "tiktoken.model", "tekken.json", "vocab.json", "spiece.model")
# Their flag `add_bos_token` counts, and is on unless the configuration says otherwise: SGLang restores this habit of
# transformers 4 (hf_transformers/tokenizer.py:_fix_v5_add_bos_eos_token).
_ADD_BOS_CLASSES = (
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
    "GemmaTokenizer",
    "GemmaTokenizerFast",
    "CohereTokenizerFast",
)


def load_tokenizer(
    place: str | Path,
    *,
    chat_template: str | Path | None = None,
    template_defaults: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
) -> PromptTokenizer:
    """Load the tokenizer of a model folder, or a tokenizer.json with what lies beside it.

    chat_template: a .jinja file to use in place of the model's own (SGLang's `chat_template`).
    template_defaults: SGLang's `default_chat_template_kwargs`. images: its `mm_process_config`, of pictures.

    Raises InputMissingError where there is none or it cannot be read; the message says what to do.
    """
    file = _find(Path(place))
    folder = file.parent
    try:
        content = file.read_bytes()
        backend = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputMissingError(f"{file} is no tokenizer that can be read ({error}); fetch it again") from error
    backend.no_truncation()
    backend.no_padding()
    config = _read_json(folder / "tokenizer_config.json")
    tokens = _special_tokens(config, folder)
    _add_missing_tokens(backend, config, tokens)
    _restore_bos(backend, config, tokens)
    source = _template_source(folder, config, chat_template)
    template, problem = _compile(source, folder)
    rule = picture_rule(folder, backend, tokens.get("bos_token", ""), images or {})
    defaults = dict(template_defaults or {})
    identity = _digest(content, tokenizers.__version__, config, tokens, source, defaults, *([rule] if rule else []))
    encoder = Encoder(backend, _tokens_of_template(backend, source or "", tokens))
    return PromptTokenizer(encoder, template, problem, tokens, defaults, identity, rule)


def load_engine_tokenizer(
    place: str | Path, arguments: Mapping[str, Any], *, bidirectional: bool = False
) -> PromptTokenizer:
    """The tokenizer of a model folder as an engine with these arguments (SGLang's names) makes prompts by it.

    bidirectional: whether the model's tokens see those behind them, so that the engine keeps no prefix.
    A `chat_template` that is no file names one of SGLang's own, which is not known here. Raises as `load_tokenizer`.
    """
    template, media = arguments.get("chat_template"), arguments.get("mm_process_config")
    images = media.get("image") if isinstance(media, dict) else None
    found = load_tokenizer(
        arguments.get("tokenizer_path") or place,
        chat_template=template if isinstance(template, str) and Path(template).is_file() else None,
        template_defaults=arguments.get("default_chat_template_kwargs"),
        images=images if isinstance(images, dict) else None,
    )
    if bidirectional or arguments.get("disable_radix_cache") is True:
        return replace(found, shares=False, identity=_digest(found.identity.encode(), "whole"))
    return found


def template_shows_tools(place: Path, chat_template: object = None) -> bool | None:
    """Whether the chat template of a model folder reads the tools of a request; None where it cannot be found or read.

    chat_template: as for `load_tokenizer`; a name of SGLang's own templates is not known here.
    """
    source = own_template(place, chat_template)
    return None if source is None else reads_tools(source)


def template_reranks(place: Path, chat_template: object = None) -> bool:
    """Whether the chat template of a model folder has its model score pairs of texts. chat_template: as above."""
    source = own_template(place, chat_template)
    return source is not None and is_reranker(source)


def own_template(place: Path, chat_template: object = None) -> str | None:
    """The text of a model folder's chat template; None where it cannot be found or read. chat_template: as above."""
    given = Path(chat_template) if isinstance(chat_template, str) else None
    if chat_template is not None and (given is None or not given.is_file()):
        return None
    try:
        folder = _find(place).parent
        return _template_source(folder, _read_json(folder / "tokenizer_config.json"), given)
    except InputMissingError:
        return None


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    if (place / _FILE).is_file():
        return place / _FILE
    if not place.is_dir():
        raise InputMissingError(f"there is no {place}: give a model folder or a {_FILE} with --tokenizer")
    found = [path.name for pattern in _OTHER_FORMATS for path in sorted(place.glob(pattern))]
    if found:
        raise InputMissingError(
            f"{place} has {', '.join(dict.fromkeys(found))} but no {_FILE}: convert it with transformers "
            f"(`AutoTokenizer.from_pretrained(…).save_pretrained(…)`) or give a {_FILE} with --tokenizer"
        )
    raise InputMissingError(f"{place} holds no tokenizer: give a {_FILE} with --tokenizer")


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file. Raises InputMissingError."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputMissingError(f"{path} cannot be read ({error}); fetch the model again") from error
    return data if isinstance(data, dict) else {}


def _special_tokens(config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """By name: the standard ones, and others a model calls `…_token`."""
    named = {**config}
    if "added_tokens_decoder" not in config:
        # As transformers: the older file counts where the newer table is missing.
        named |= _read_json(folder / "special_tokens_map.json")
    extra = named.get("extra_special_tokens")
    if isinstance(extra, dict):
        named |= {name: value for name, value in extra.items() if isinstance(value, str)}
    tokens = {}
    for name, value in named.items():
        content = value.get("content") if isinstance(value, dict) and name in _NAMED else value
        is_token = name.endswith("_token") or (isinstance(extra, dict) and name in extra)
        if is_token and isinstance(content, str):
            tokens[name] = content
    return tokens


def _add_missing_tokens(backend: Tokenizer, config: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Tokens that the configuration names and tokenizer.json does not, as transformers adds them."""
    known = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    table = config.get("added_tokens_decoder") or {}
    listed = [AddedToken(**table[key]) for key in sorted(table, key=int) if isinstance(table[key], dict)]
    backend.add_tokens([token for token in listed if repr(token) not in known])
    contents = {token.content for token in backend.get_added_tokens_decoder().values()}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    more = [
        token.get("content") if isinstance(token, dict) else token for token in extra if not isinstance(extra, dict)
    ]
    names = [token for token in dict.fromkeys([*special.values(), *more]) if isinstance(token, str)]
    backend.add_tokens([AddedToken(token, special=True) for token in names if token and token not in contents])


def _restore_bos(backend: Tokenizer, config: Mapping[str, Any], special: Mapping[str, str]) -> None:
    bos = special.get("bos_token")
    flag = config.get("add_bos_token")
    if config.get("tokenizer_class") not in _ADD_BOS_CLASSES or bos is None or not (flag or flag is None):
        return
    number = backend.token_to_id(bos)
    if number is not None:
        backend.post_processor = TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, number)]
        )


def _template_source(folder: Path, config: Mapping[str, Any], given: str | Path | None) -> str | None:
    """The template's text: the user's, chat_template.jinja, tokenizer_config.json's or chat_template.json's."""
    if given is not None:
        # Line ends as SGLang reads a given file (template_manager.py:_load_jinja_template).
        return _read_text(Path(given)).strip("\n").replace("\\n", "\n")
    if (folder / "chat_template.jinja").is_file():
        return _read_text(folder / "chat_template.jinja")
    source = config.get("chat_template") or _read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}
    if isinstance(source, dict):
        # Of several, SGLang takes the first.
        source = next(iter(source.values()), None)
    return source if isinstance(source, str) else None


def _tokens_of_template(backend: Tokenizer, source: str, special: Mapping[str, str]) -> list[str]:
    """Added tokens that a prompt is likely to have: few, because each is looked for in every prompt."""
    named = {content for name, content in special.items() if name in source}
    added = (token.content for token in backend.get_added_tokens_decoder().values())
    return [content for content in added if content and (content in source or content in named)]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputMissingError(f"the chat template {path} cannot be read ({error})") from error


def _compile(source: str | None, folder: Path) -> tuple[ChatTemplate | None, str]:
    if source is None:
        return None, f"{folder.name} has no chat template; chat requests need one"
    try:
        return ChatTemplate(source), ""
    except jinja2.TemplateError as error:
        return None, f"the chat template of {folder.name} does not compile: {error}"


def _digest(content: bytes, *rest: object) -> str:
    digest = blake2b(content, digest_size=16)
    digest.update(json.dumps(rest, sort_keys=True, default=str).encode())
    return digest.hexdigest()
