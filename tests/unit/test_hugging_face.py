"""Hugging Face configs become the right specs, and bad ones clear messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gnomon.errors import SpecError
from gnomon.spec import ModelSpec
from gnomon.spec.catalog import list_models, load_model
from gnomon.spec.hugging_face import load_hf_config

CONFIGS = json.loads((Path(__file__).parents[1] / "fixtures" / "hf_configs.json").read_text())
LLAMA = CONFIGS["llama-3-8b"]


@pytest.mark.parametrize("name", CONFIGS)
def test_config_gives_the_catalog_entry(name):
    entry = load_model(name)
    spec = ModelSpec.from_hf_config(CONFIGS[name], name)
    assert spec.model_copy(update={"source": entry.source}) == entry


def test_every_config_is_a_model_of_the_catalog():
    assert len(CONFIGS) >= 30
    assert set(CONFIGS) <= set(list_models())


def test_every_family_is_covered():
    families = {config["model_type"] for config in CONFIGS.values()}
    assert families == {
        "deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss",
        "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "t5",
    }  # fmt: skip


def test_qwen2_moe():
    from gnomon.plan.parameters import count_parameters

    config = {
        "model_type": "qwen2_moe", "num_hidden_layers": 24, "hidden_size": 2048, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 5632, "vocab_size": 151936, "max_position_embeddings": 8192,
        "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    }  # fmt: skip
    assert count_parameters(ModelSpec.from_hf_config(config)).total == 14_315_784_192  # Qwen1.5-MoE-A2.7B


@pytest.mark.parametrize(
    ("name", "layers"),
    [("mistral-7b", 32), ("mixtral-8x7b", 0), ("gemma-2-9b", 21), ("gemma-3-1b", 22), ("gpt-oss-120b", 18),
     ("qwen2.5-7b", 0)],
)  # fmt: skip
def test_windowed_layers(name, layers):
    spec = ModelSpec.from_hf_config(CONFIGS[name])
    assert spec.num_sliding_window_layers == layers
    assert (spec.sliding_window is None) == (layers == 0)


def test_windowed_layers_of_qwen_start_at_max_window_layers():
    config = {**CONFIGS["qwen2.5-7b"], "use_sliding_window": True, "max_window_layers": 21}
    assert ModelSpec.from_hf_config(config).num_sliding_window_layers == 7


def test_dense_leading_layers_of_qwen_moe():
    config = {**CONFIGS["qwen3-30b-a3b"], "mlp_only_layers": [0, 1]}
    assert ModelSpec.from_hf_config(config).moe.num_dense_layers == 2


def test_llama_biases():
    spec = ModelSpec.from_hf_config({**LLAMA, "attention_bias": True, "mlp_bias": True})
    assert (spec.attention_bias, spec.attention_output_bias, spec.mlp_bias) == (True, True, True)


def test_unknown_model_type_names_the_nearest_and_all_supported():
    with pytest.raises(SpecError, match=r"'lama' is not supported. Did you mean 'llama'\?.*mixtral"):
        ModelSpec.from_hf_config({**LLAMA, "model_type": "lama"})


def test_missing_model_type():
    with pytest.raises(SpecError, match="no key 'model_type'"):
        ModelSpec.from_hf_config({})


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"])
@pytest.mark.parametrize("absent", [True, False])
def test_missing_or_null_key_is_named(key, absent):
    config = {k: v for k, v in LLAMA.items() if k != key} if absent else {**LLAMA, key: None}
    with pytest.raises(SpecError, match=f"no key '{key}'"):
        ModelSpec.from_hf_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "4096"}, "hidden_size='4096'; expected int, found str"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0; it must be at least 1"),
        ({"hidden_act": "silly"}, "hidden_act='silly', which is not supported. Did you mean 'silu'"),
        ({"num_key_value_heads": 5}, "num_heads=32 does not divide by num_kv_heads=5"),
        ({"head_dim": "x"}, "'head_dim' is 'x'"),
    ],
)
def test_wrong_values_are_explained(changes, message):
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_hf_config({**LLAMA, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3-30b-a3b", {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ("qwen3-30b-a3b", {"mlp_only_layers": [3]}, r"mlp_only_layers=\[3\]; only leading layers can be dense"),
        ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq=2"),
        ("gpt-oss-20b", {"layer_types": "all"}, "layer_types='all'; expected list"),
        ("gemma-3-27b", {"text_config": None}, "no key 'num_hidden_layers'|no key 'hidden_size'"),
    ],
)
def test_unsupported_structures_are_refused(name, changes, message):
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_hf_config({**CONFIGS[name], **changes})


def test_config_that_is_no_mapping():
    with pytest.raises(SpecError, match="must be a mapping, found list"):
        ModelSpec.from_hf_config([1])


@pytest.mark.parametrize("as_folder", [True, False])
def test_load_names_the_model_after_its_folder(tmp_path, as_folder):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    spec = load_hf_config(folder if as_folder else folder / "config.json")
    assert spec.name == "my-llama"
    assert spec.num_layers == 32


def test_load_of_a_missing_file(tmp_path):
    with pytest.raises(SpecError, match="File not found"):
        load_hf_config(tmp_path / "config.json")
