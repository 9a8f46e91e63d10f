"""`ModelSpec`: the architecture of a transformer, as numbers."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gnomon.spec._noun import Noun

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["learned", "rope", "relative", "none"]


class MoESpec(Noun):
    """Mixture-of-experts feed-forward layers."""

    num_experts: PositiveInt
    experts_per_token: PositiveInt
    expert_ffn_size: PositiveInt
    num_shared_experts: int = Field(default=0, ge=0)
    shared_expert_ffn_size: int = Field(
        default=0, ge=0, description="of all shared experts together; default: num_shared_experts * expert_ffn_size"
    )
    shared_expert_gate: bool = False
    num_dense_layers: int = Field(default=0, ge=0, description="leading layers with a dense feed-forward")
    moe_layer_period: PositiveInt = Field(
        default=1, description="of the layers after those, each how-manieth has experts (Llama 4 Maverick: 2)"
    )
    router_bias: bool = False
    expert_bias: bool = False
    selection_bias: bool = Field(
        default=False, description="a buffer per expert that steers the routing without a gradient (DeepSeek-V3)"
    )

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("shared_expert_ffn_size") is not None:
            return data
        shared, width = data.get("num_shared_experts"), data.get("expert_ffn_size")
        if not isinstance(shared, int) or not isinstance(width, int):
            return data
        return {**data, "shared_expert_ffn_size": shared * width}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} exceeds num_experts={self.num_experts}; "
                "a token cannot be routed to more experts than there are"
            )
        if (self.num_shared_experts > 0) != (self.shared_expert_ffn_size > 0):
            raise ValueError(
                f"num_shared_experts={self.num_shared_experts} contradicts "
                f"shared_expert_ffn_size={self.shared_expert_ffn_size}; set both or neither"
            )
        return self


class MLASpec(Noun):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""

    q_lora_rank: int | None = Field(default=None, gt=0, description="None: queries are projected directly")
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    v_head_dim: PositiveInt


class EncoderSpec(Noun):
    """The encoder of an encoder-decoder (T5, arXiv 1910.10683): layers like the decoder's, which attend both ways.

    Each layer of the decoder then has a second attention, over the encoder's output.
    """

    num_layers: PositiveInt


class DiffusionSpec(Noun):
    """What makes a transformer a diffusion transformer (DiT, arXiv 2212.09748): patches of an image in place of tokens.

    Time step and class condition every layer: one projection makes shift, scale and gate of both its branches
    (adaLN-Zero), and its norms have no weights of their own. Positions are fixed.
    """

    patch_size: PositiveInt
    channels: PositiveInt = Field(default=4, description="of the (latent) image")
    out_channels: PositiveInt = Field(default=0, description="default: twice the channels, noise and its variance")
    num_classes: int = Field(default=0, ge=0, description="0: conditioned on the time step alone")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        channels = data.get("channels", 4) if isinstance(data, dict) else None
        if not isinstance(channels, int) or data.get("out_channels") is not None:
            return data
        return {**data, "out_channels": 2 * channels}

    @property
    def inputs(self) -> int:
        """Numbers of one patch."""
        return self.patch_size**2 * self.channels

    @property
    def outputs(self) -> int:
        """Numbers that are predicted of one patch."""
        return self.patch_size**2 * self.out_channels


class ModelSpec(Noun):
    """A transformer: a decoder, with an encoder before it or without. Sizes are counts of elements.

    `None` means derived as its description says.
    """

    name: str = "unnamed"
    num_layers: PositiveInt
    hidden_size: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt = Field(default=0, description="default: num_heads (multi-head attention)")
    head_dim: PositiveInt = Field(default=0, description="default: hidden_size / num_heads")
    ffn_hidden_size: PositiveInt = Field(default=0, description="default: 4 * hidden_size")
    vocab_size: int = Field(default=0, ge=0, description="needed unless the model has patches (`diffusion`)")
    max_seq_len: PositiveInt = 2048
    activation: Activation = "gelu"
    gated_mlp: bool = False
    norm: Norm = "layernorm"
    norm_bias: bool = Field(default=False, description="a bias in each LayerNorm")
    num_norms_per_layer: PositiveInt = 2
    qk_norm: bool = False
    position: Position = "learned"
    tied_embeddings: bool = True
    attention_bias: bool = Field(default=False, description="biases of the query, key and value projections")
    attention_output_bias: bool = False
    attention_sinks: bool = Field(default=False, description="one learned logit per head (GPT-OSS)")
    mlp_bias: bool = False
    parallel_block: bool = Field(default=False, description="attention and MLP read the same residual (GPT-NeoX)")
    sliding_window: int | None = Field(default=None, gt=0, description="tokens that a windowed layer attends to")
    num_sliding_window_layers: int = Field(default=0, ge=0, description="default: all, if sliding_window is set")
    moe: MoESpec | None = None
    mla: MLASpec | None = None
    num_mtp_layers: int = Field(default=0, ge=0, description="multi-token-prediction modules, not counted as layers")
    encoder: EncoderSpec | None = Field(default=None, description="num_layers are then those of the decoder")
    diffusion: DiffusionSpec | None = None
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        hidden, heads = data.get("hidden_size"), data.get("num_heads")
        if data.get("num_kv_heads") is None and heads is not None:
            data["num_kv_heads"] = heads
        if data.get("ffn_hidden_size") is None and isinstance(hidden, int):
            data["ffn_hidden_size"] = 4 * hidden
        if data.get("sliding_window") is not None and data.get("num_sliding_window_layers") is None:
            data["num_sliding_window_layers"] = data.get("num_layers")
        if data.get("head_dim") is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            if hidden % heads:
                raise ValueError(
                    f"hidden_size={hidden} does not divide by num_heads={heads}; change one of them or set head_dim"
                )
            data["head_dim"] = hidden // heads
        if data.get("diffusion") is not None:  # no token has an embedding, and a fixed table needs no weights
            data = {"tied_embeddings": False, "position": "none", **data}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide by num_kv_heads={self.num_kv_heads}; "
                f"choose one of {[k for k in range(1, min(self.num_heads, 4096) + 1) if self.num_heads % k == 0]}"
            )
        if self.num_sliding_window_layers and self.sliding_window is None:
            raise ValueError(
                f"num_sliding_window_layers={self.num_sliding_window_layers} without sliding_window, the number of "
                "tokens that they attend to; set both or neither"
            )
        if self.num_sliding_window_layers > self.num_layers:
            raise ValueError(
                f"num_sliding_window_layers={self.num_sliding_window_layers} exceeds num_layers={self.num_layers}"
            )
        if self.moe is not None and self.moe.num_dense_layers > self.num_layers:
            raise ValueError(f"moe.num_dense_layers={self.moe.num_dense_layers} exceeds num_layers={self.num_layers}")
        if self.moe is not None and self.moe.moe_layer_period > max(self.num_layers, 1):
            raise ValueError(f"moe.moe_layer_period={self.moe.moe_layer_period} exceeds num_layers={self.num_layers}")
        self._check_kind()
        return self

    def _check_kind(self) -> None:
        """Raise ValueError for an encoder-decoder or a diffusion transformer with parts that only decoders have."""
        if self.vocab_size == 0 and self.diffusion is None:
            raise ValueError("missing key 'vocab_size'")
        kind = "encoder" if self.encoder else "diffusion" if self.diffusion else None
        if kind is None:
            return
        parts = {
            "moe": self.moe is not None,
            "mla": self.mla is not None,
            "num_mtp_layers": self.num_mtp_layers > 0,
            "num_sliding_window_layers": self.num_sliding_window_layers > 0,
            "parallel_block": self.parallel_block,
            "diffusion": kind == "encoder" and self.diffusion is not None,
            "vocab_size": kind == "diffusion" and self.vocab_size > 0,
            "tied_embeddings": kind == "diffusion" and self.tied_embeddings,
        }
        for name, found in parts.items():
            if found:
                raise ValueError(f"a model with {kind} cannot have {name} as well; leave one of them out")

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads together (values are as wide)."""
        return self.num_kv_heads * self.head_dim

    def is_dense(self, layer: int) -> bool:
        """Return whether a layer (from 0) has a dense feed-forward."""
        if self.moe is None or layer < self.moe.num_dense_layers:
            return True
        return (layer - self.moe.num_dense_layers + 1) % self.moe.moe_layer_period != 0

    @classmethod
    def from_hf_config(cls, config: dict[str, Any], name: str = "") -> ModelSpec:
        """Return the spec of a Hugging Face `config.json`; raise SpecError for an unknown architecture."""
        from gnomon.spec.hugging_face import model_spec_from_config

        return model_spec_from_config(config, name)
