"""Model cards: the dimensions that decide what a token costs, one YAML file per alias.

Counts are of matrices only. Norms, biases and sinks are left out: they are below 0.1 % of every model here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the weights come from.

    hub: id on the Hugging Face hub.
    package, file: an importable Python package that ships the weights as GGUF, and the file's name in it.
    distribution: what pip calls the package.
    """

    hub: str
    package: str | None = None
    file: str | None = None
    distribution: str | None = None


@dataclass(frozen=True, slots=True)
class Moe:
    """Mixture of experts: each token passes `experts_per_token` of `experts` gated MLPs.

    expert_intermediate_size: width of one expert.
    shared_intermediate_size: summed width of the experts that every token passes; 0 without.
    dense_layers: the first layers, which have one plain MLP of the card's `intermediate_size` instead.
    """

    experts: int
    experts_per_token: int
    expert_intermediate_size: int
    shared_intermediate_size: int = 0
    dense_layers: int = 0


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention: a token caches one compressed vector per layer, not keys and values.

    q_lora_rank: None where queries are projected at full rank.
    """

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Layers that attend to the last `window` tokens only.

    full_every: every so-many-th layer attends to the whole context instead; 0 where none does.
    """

    window: int
    full_every: int


@dataclass(frozen=True, slots=True)
class Parsers:
    """SGLang's parsers that fit what the model writes (names as SGLang has them); None where it needs none.

    tool_call: makes `tool_calls` of the model's text. reasoning: splits thinking from the answer.
    """

    tool_call: str | None = None
    reasoning: str | None = None


# Fields of a card that no step depends on.
_NAMES = ("alias", "title", "license", "source", "context_length", "published_parameters", "parsers")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the planner has to know of a model. Sizes are elements, not bytes.

    architecture: class name in SGLang and transformers, such as `LlamaForCausalLM`.
    context_length: tokens of prompt and answer together.
    heads, kv_heads, head_dim: of attention; `mla` replaces the cached part where it is given.
    intermediate_size: width of the plain gated MLP (of the dense layers, where `moe` is given).
    published_parameters: the publisher's own count, which checks the dimensions; None where there is none.
    parsers: how SGLang is to read the model's output; None leaves it to the user.
    quantization: of the checkpoint, as its config names the method ("fp8", "awq 4"); None for plain 16 or 32 bits.
    """

    alias: str
    title: str
    license: str
    source: ModelSource | None
    architecture: str
    context_length: int
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    published_parameters: int | None
    moe: Moe | None = None
    mla: Mla | None = None
    sliding_window: SlidingWindow | None = None
    parsers: Parsers | None = None
    quantization: str | None = None

    @property
    def digest(self) -> str:
        """16 hex digits of what decides how long a step takes: the same for a model by its alias, hub id and folder,
        and for all models of its architecture, dimensions and quantisation."""
        unused = set(_NAMES)
        if self.mla is not None:
            unused |= {"kv_heads", "head_dim"}
        if self.moe is not None and not self.moe.dense_layers:
            unused.add("intermediate_size")
        counted = {name: value for name, value in asdict(self).items() if name not in unused}
        return blake2b(repr(sorted(counted.items())).encode(), digest_size=8).hexdigest()

    @property
    def embedding_parameters(self) -> int:
        """Elements of the input embedding. A look-up: read one row per token, no multiplication."""
        return self.vocab_size * self.hidden_size

    @property
    def head_parameters(self) -> int:
        """Elements of the output head, multiplied at sampled positions only. Where tied, the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters_total(self) -> int:
        """Elements of all layers, without embedding and head."""
        return self._layers_with(self.moe.experts if self.moe else 0)

    @property
    def layer_parameters_active(self) -> int:
        """Elements that one token is multiplied with in all layers: a forward pass takes 2 FLOP of each."""
        return self._layers_with(self.moe.experts_per_token if self.moe else 0)

    @property
    def parameters_total(self) -> int:
        """Elements of the whole model, a tied embedding counted once."""
        return self.layer_parameters_total + self._vocabulary_parameters

    @property
    def parameters_active(self) -> int:
        """Elements of the whole model less the experts that a token passes by (the publishers' "active")."""
        return self.layer_parameters_active + self._vocabulary_parameters

    @property
    def full_attention_layers(self) -> int:
        """Layers whose cache grows with the whole context."""
        window = self.sliding_window
        if window is None:
            return self.layers
        return self.layers // window.full_every if window.full_every else 0

    def kv_bytes_per_token(self, bytes_per_value: float = 2) -> int:
        """Bytes of KV cache that one more token takes, over all layers.

        bytes_per_value: 2 for bfloat16 and float16, 1 for fp8, 4 for float32. With a sliding window this
        holds until the window is full; `kv_bytes` has the rest.
        """
        return round(self.layers * self._kv_values_per_layer * bytes_per_value)

    def kv_bytes(self, context_tokens: int, bytes_per_value: float = 2) -> int:
        """Bytes of KV cache that attention reads for one token after `context_tokens`, over all layers."""
        full = self.full_attention_layers
        window = self.sliding_window.window if self.sliding_window else context_tokens
        token_layers = full * context_tokens + (self.layers - full) * min(context_tokens, window)
        return round(token_layers * self._kv_values_per_layer * bytes_per_value)

    @property
    def attention_flops_per_pair(self) -> int:
        """FLOP of one query token with one key token in one layer: query times key, and weight times value.

        MLA counts its prefill form, which expands the latent vector to keys and values.
        """
        mla = self.mla
        if mla is not None:
            return 2 * self.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim)
        return 4 * self.heads * self.head_dim

    @property
    def _kv_values_per_layer(self) -> int:
        if self.mla is not None:
            return self.mla.kv_lora_rank + self.mla.qk_rope_head_dim
        return 2 * self.kv_heads * self.head_dim

    @property
    def _vocabulary_parameters(self) -> int:
        return self.embedding_parameters + (0 if self.tied_embeddings else self.head_parameters)

    def _layers_with(self, experts: int) -> int:
        """Elements of all layers, with `experts` routed experts in each sparse one."""
        dense_mlp = 3 * self.hidden_size * self.intermediate_size
        attention = self.layers * self._attention_parameters
        if self.moe is None:
            return attention + self.layers * dense_mlp
        moe = self.moe
        widths = experts * moe.expert_intermediate_size + moe.shared_intermediate_size
        router = self.hidden_size * moe.experts
        sparse_layers = self.layers - moe.dense_layers
        sparse = sparse_layers * (3 * self.hidden_size * widths + router)
        return attention + moe.dense_layers * dense_mlp + sparse

    @property
    def _attention_parameters(self) -> int:
        """Elements of one layer's query, key, value and output projections."""
        hidden, mla = self.hidden_size, self.mla
        if mla is None:
            return 2 * hidden * self.head_dim * (self.heads + self.kv_heads)
        query_width = self.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        rank = mla.q_lora_rank
        query = hidden * query_width if rank is None else rank * (hidden + query_width)
        down = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
        up = mla.kv_lora_rank * self.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        return query + down + up + self.heads * mla.v_head_dim * hidden
