"""`ModelSpec` from a Hugging Face `config.json`: one small function per family, found by `model_type`.

Keys and defaults follow the configuration classes of the `transformers` library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gnomon.errors import SpecError, did_you_mean
from gnomon.spec._noun import read_mapping
from gnomon.spec.model import ModelSpec

T = TypeVar("T")

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class _Config:
    """The keys of one config. A key that is null counts as absent."""

    def __init__(self, values: Mapping[str, Any], model_type: str) -> None:
        self.values = values
        self.model_type = model_type

    def __getitem__(self, key: str) -> int:
        """Return the size `key`; raise SpecError naming it when it is absent or not a positive integer."""
        value = self.values.get(key)
        if value is None:
            raise SpecError(
                f"The Hugging Face config of model_type '{self.model_type}' has no key '{key}'. "
                "Use the complete config.json of the model."
            )
        size = self._checked(key, value, int)
        if size < 1:
            raise SpecError(f"The Hugging Face config sets {key}={size}; it must be at least 1.")
        return size

    def size(self, key: str, default: int) -> int:
        """Return the size `key`, or `default` when it is absent."""
        return default if self.values.get(key) is None else self[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return any value of `key`, or `default` when it is absent."""
        value = self.values.get(key)
        return default if value is None else value

    def list(self, key: str) -> list[Any]:
        """Return the list `key`, empty when it is absent."""
        return self._checked(key, self.get(key, []), list)

    def section(self, key: str) -> dict[str, Any]:
        """Return the mapping `key`, empty when it is absent."""
        return self._checked(key, self.get(key, {}), dict)

    def _checked(self, key: str, value: Any, kind: type[T]) -> T:
        if not isinstance(value, kind) or isinstance(value, bool):  # in Python a truth value is also an int
            raise SpecError(
                f"The Hugging Face config sets {key}={value!r}; expected {kind.__name__}, found {type(value).__name__}."
            )
        return value


def model_spec_from_config(config: Mapping[str, Any], name: str = "") -> ModelSpec:
    """Return the spec that a Hugging Face config describes.

    Raises SpecError for an unknown `model_type` (naming those supported) and for a missing key (naming it).
    """
    if not isinstance(config, Mapping):
        raise SpecError(f"A Hugging Face config must be a mapping, found {type(config).__name__}.")
    model_type = str(config.get("model_type", ""))
    if not model_type:
        raise SpecError("The config has no key 'model_type'. Give the config.json of a Hugging Face model.")
    if model_type not in _FAMILIES:
        raise SpecError(
            f"model_type '{model_type}' is not supported. {did_you_mean(model_type, _FAMILIES)} "
            f"Supported: {', '.join(_FAMILIES)}. Describe other models as a ModelSpec in YAML."
        )
    fields = _FAMILIES[model_type](_Config(config, model_type))
    name = name or str(config.get("_name_or_path") or model_type)
    return ModelSpec.from_mapping({"name": name, **fields}, where=f"Hugging Face config '{name}'")


def load_hf_config(path: str | Path, name: str = "") -> ModelSpec:
    """Return the spec of a `config.json`, or of the one in the folder `path`; named after the folder by default."""
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    return model_spec_from_config(read_mapping(path), name or path.resolve().parent.name)


def _activation(c: _Config, key: str, default: str) -> str:
    return _known_activation(key, str(c.get(key, default)))


def _known_activation(key: str, found: str) -> str:
    if found not in _ACTIVATIONS:
        raise SpecError(
            f"The Hugging Face config sets {key}='{found}', which is not supported. {did_you_mean(found, _ACTIVATIONS)}"
        )
    return _ACTIVATIONS[found]


def _windows(c: _Config, windowed: Callable[[int], bool]) -> dict[str, Any]:
    """Return the sliding-window fields: `layer_types` decides where it is given, else `windowed(layer index)`."""
    window, layers = c.get("sliding_window"), c["num_hidden_layers"]
    if window is None:
        return {}
    types = c.list("layer_types")
    count = types.count("sliding_attention") if types else sum(windowed(index) for index in range(layers))
    return {"sliding_window": window, "num_sliding_window_layers": count} if count else {}


def _decoder(c: _Config) -> dict[str, Any]:
    """Return what all Llama-like decoders share: RMSNorm, rotary positions and a gated feed-forward."""
    return {
        "num_layers": c["num_hidden_layers"],
        "hidden_size": c["hidden_size"],
        "num_heads": c["num_attention_heads"],
        "num_kv_heads": c.get("num_key_value_heads"),
        "head_dim": c.get("head_dim"),
        "ffn_hidden_size": c["intermediate_size"],
        "vocab_size": c["vocab_size"],
        "max_seq_len": c["max_position_embeddings"],
        "activation": _activation(c, "hidden_act", "silu"),
        "gated_mlp": True,
        "norm": "rmsnorm",
        "position": "rope",
        "tied_embeddings": c.get("tie_word_embeddings", False),
    }


def _llama(c: _Config) -> dict[str, Any]:
    bias = c.get("attention_bias", False)
    return {
        **_decoder(c),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": c.get("mlp_bias", False),
    }


def _mistral(c: _Config) -> dict[str, Any]:
    return {**_decoder(c), **_windows(c, lambda layer: True)}


def _mixtral(c: _Config) -> dict[str, Any]:
    experts = {
        "num_experts": c["num_local_experts"],
        "experts_per_token": c["num_experts_per_tok"],
        "expert_ffn_size": c["intermediate_size"],
    }
    return {**_mistral(c), "moe": experts}


def _qwen2(c: _Config) -> dict[str, Any]:
    return {**_decoder(c), "attention_bias": True, **_qwen_windows(c)}


def _qwen2_moe(c: _Config) -> dict[str, Any]:
    shared = {
        "num_shared_experts": 1,
        "shared_expert_ffn_size": c["shared_expert_intermediate_size"],
        "shared_expert_gate": True,
    }
    return {**_qwen2(c), "moe": {**_qwen_experts(c), **shared}}


def _qwen3(c: _Config) -> dict[str, Any]:
    bias = c.get("attention_bias", False)
    return {
        **_decoder(c),
        "qk_norm": True,
        "attention_bias": bias,
        "attention_output_bias": bias,
        **_qwen_windows(c),
    }


def _qwen3_moe(c: _Config) -> dict[str, Any]:
    return {**_qwen3(c), "moe": _qwen_experts(c)}


def _qwen_windows(c: _Config) -> dict[str, Any]:
    if not c.get("use_sliding_window", False):
        return {}
    return _windows(c, lambda layer: layer >= c.size("max_window_layers", 28))


def _qwen_experts(c: _Config) -> dict[str, Any]:
    _require_one(c, "decoder_sparse_step")
    return {
        "num_experts": c["num_experts"],
        "experts_per_token": c["num_experts_per_tok"],
        "expert_ffn_size": c["moe_intermediate_size"],
        "num_dense_layers": _leading_dense_layers(c.list("mlp_only_layers")),
    }


def _require_one(c: _Config, key: str) -> None:
    if c.size(key, 1) != 1:
        raise SpecError(
            f"The Hugging Face config sets {key}={c[key]}; only 1 is supported "
            "(every layer after the leading dense ones has experts)."
        )


def _leading_dense_layers(layers: list[int]) -> int:
    if set(layers) != set(range(len(layers))):
        raise SpecError(f"The Hugging Face config sets mlp_only_layers={layers}; only leading layers can be dense.")
    return len(layers)


def _gemma(c: _Config) -> dict[str, Any]:
    activation = _activation(c, "hidden_activation", "gelu_pytorch_tanh")
    bias = c.get("attention_bias", False)
    return {
        **_decoder(c),
        "head_dim": c.get("head_dim", 256),
        "activation": activation,
        "attention_bias": bias,
        "attention_output_bias": bias,
        "tied_embeddings": c.get("tie_word_embeddings", True),
    }


def _gemma2(c: _Config) -> dict[str, Any]:
    return {**_gemma(c), "num_norms_per_layer": 4, **_windows(c, lambda layer: layer % 2 == 0)}


def _gemma3_text(c: _Config) -> dict[str, Any]:
    pattern = c.size("sliding_window_pattern", 6)
    return {
        **_gemma(c),
        "num_norms_per_layer": 4,
        "qk_norm": True,
        **_windows(c, lambda layer: (layer + 1) % pattern != 0),
    }


def _gemma3(c: _Config) -> dict[str, Any]:
    """Return the language model of a multimodal Gemma 3; its config leaves out what equals the class defaults."""
    defaults = {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
    }
    return _gemma3_text(_Config({**defaults, **c.section("text_config")}, c.model_type))


def _t5(c: _Config) -> dict[str, Any]:
    """Return an encoder-decoder; `feed_forward_proj` is its activation, after `gated-` where there is a gate."""
    form = str(c.get("feed_forward_proj", "relu"))
    activation = "gelu_new" if form == "gated-gelu" else form.removeprefix("gated-")  # as T5Config reads it
    layers = c["num_layers"]
    return {
        "num_layers": c.get("num_decoder_layers", layers),
        "encoder": {"num_layers": layers},
        "hidden_size": c["d_model"],
        "num_heads": c["num_heads"],
        "head_dim": c["d_kv"],
        "ffn_hidden_size": c["d_ff"],
        "vocab_size": c["vocab_size"],
        "max_seq_len": c.get("n_positions", 512),
        "activation": _known_activation("feed_forward_proj", activation),
        "gated_mlp": form.startswith("gated-"),
        "norm": "rmsnorm",
        "position": "relative",
        "tied_embeddings": c.get("tie_word_embeddings", True),
    }


def _gpt2(c: _Config) -> dict[str, Any]:
    return {
        "num_layers": c["n_layer"],
        "hidden_size": c["n_embd"],
        "num_heads": c["n_head"],
        "ffn_hidden_size": c.get("n_inner"),
        "vocab_size": c["vocab_size"],
        "max_seq_len": c["n_positions"],
        "activation": _activation(c, "activation_function", "gelu_new"),
        "norm": "layernorm",
        "norm_bias": True,
        "position": "learned",
        "tied_embeddings": c.get("tie_word_embeddings", True),
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    }


def _gpt_neox(c: _Config) -> dict[str, Any]:
    bias = c.get("attention_bias", True)
    return {
        **_decoder(c),
        "activation": _activation(c, "hidden_act", "gelu"),
        "gated_mlp": False,
        "norm": "layernorm",
        "norm_bias": True,
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": True,
        "parallel_block": c.get("use_parallel_residual", True),
    }


def _deepseek_v2(c: _Config) -> dict[str, Any]:
    _require_one(c, "moe_layer_freq")
    bias = c.get("attention_bias", False)
    latent = {
        "q_lora_rank": c.get("q_lora_rank"),
        **{key: c[key] for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")},
    }
    experts = {
        "num_experts": c["n_routed_experts"],
        "experts_per_token": c["num_experts_per_tok"],
        "expert_ffn_size": c["moe_intermediate_size"],
        "num_shared_experts": c.get("n_shared_experts", 0),
        "num_dense_layers": c.get("first_k_dense_replace", 0),
    }
    return {
        **_decoder(c),
        "head_dim": latent["qk_nope_head_dim"] + latent["qk_rope_head_dim"],
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mla": latent,
        "moe": experts,
    }


def _deepseek_v3(c: _Config) -> dict[str, Any]:
    fields = _deepseek_v2(c)
    experts = {**fields["moe"], "selection_bias": True}
    return {**fields, "moe": experts, "num_mtp_layers": c.get("num_nextn_predict_layers", 0)}


def _gpt_oss(c: _Config) -> dict[str, Any]:
    experts = {
        "num_experts": c["num_local_experts"],
        "experts_per_token": c["num_experts_per_tok"],
        "expert_ffn_size": c["intermediate_size"],
        "router_bias": True,
        "expert_bias": True,
    }
    bias = c.get("attention_bias", True)
    return {
        **_decoder(c),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "attention_sinks": True,
        "moe": experts,
        **_windows(c, lambda layer: layer % 2 == 0),
    }


_FAMILIES: dict[str, Callable[[_Config], dict[str, Any]]] = {
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma3_text": _gemma3_text,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "mt5": _t5,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "t5": _t5,
}
