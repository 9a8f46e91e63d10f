"""Every noun goes to YAML and JSON, as text and as a file, and back without loss."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.spec import (
    AcceleratorSpec,
    ClusterSpec,
    CollectiveCurve,
    Efficiency,
    GridCurve,
    HardwareProfile,
    Layout,
    MLASpec,
    ModelSpec,
    MoESpec,
    NetworkTier,
    SizeCurve,
    Workload,
)
from gnomon.spec.catalog import list_clusters, list_models, load_cluster, load_model

sizes = st.integers(1, 2**40)
small = st.integers(1, 256)
positive = st.floats(1e-12, 1e18)
fractions = st.floats(0.0, 1.0)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
flags = st.booleans()


@st.composite
def moes(draw, num_layers):
    num_experts = draw(small)
    shared = draw(st.integers(0, 3))
    return MoESpec(
        num_experts=num_experts,
        experts_per_token=draw(st.integers(1, num_experts)),
        expert_ffn_size=draw(sizes),
        num_shared_experts=shared,
        shared_expert_ffn_size=draw(sizes) if shared else 0,
        shared_expert_gate=draw(flags),
        num_dense_layers=draw(st.integers(0, num_layers)),
        router_bias=draw(flags),
        expert_bias=draw(flags),
        selection_bias=draw(flags),
    )


mlas = st.builds(
    MLASpec, q_lora_rank=st.none() | sizes, kv_lora_rank=sizes, qk_nope_head_dim=sizes, qk_rope_head_dim=sizes,
    v_head_dim=sizes,
)  # fmt: skip


@st.composite
def models(draw):
    num_layers, num_kv_heads = draw(small), draw(small)
    window = draw(st.none() | sizes)
    return ModelSpec(
        name=draw(texts),
        num_layers=num_layers,
        hidden_size=draw(sizes),
        num_heads=num_kv_heads * draw(small),
        num_kv_heads=num_kv_heads,
        head_dim=draw(sizes),
        ffn_hidden_size=draw(sizes),
        vocab_size=draw(sizes),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "silu", "relu"])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        position=draw(st.sampled_from(["learned", "rope", "relative", "none"])),
        qk_norm=draw(flags),
        tied_embeddings=draw(flags),
        sliding_window=window,
        num_sliding_window_layers=0 if window is None else draw(st.integers(0, num_layers)),
        moe=draw(st.none() | moes(num_layers)),
        mla=draw(st.none() | mlas),
        source=draw(texts),
    )


@st.composite
def layouts(draw):
    ep, expert_tp = draw(small), draw(small)
    return Layout(
        dp=ep * draw(small),
        tp=expert_tp * draw(small),
        pp=draw(small),
        cp=draw(small),
        ep=ep,
        expert_tp=expert_tp,
        zero_stage=draw(st.sampled_from([0, 1, 2, 3])),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
    )


@st.composite
def workloads(draw):
    micro_batch = draw(small)
    return Workload(
        seq_len=draw(sizes),
        global_batch=micro_batch * draw(small),
        micro_batch=micro_batch,
        precision=draw(st.sampled_from(["fp32", "bf16"])),
        attention_mask=draw(st.sampled_from(["causal", "full"])),
        gradient_clipping=draw(flags),
    )


axes = st.lists(positive, min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def size_curves(draw):
    size = draw(axes)
    return SizeCurve(size=size, rate=draw(st.lists(positive, min_size=len(size), max_size=len(size))))


@st.composite
def grid_curves(draw):
    first, second = draw(axes), draw(axes)
    points = len(first) * len(second)
    return GridCurve(axes=(first, second), rate=draw(st.lists(positive, min_size=points, max_size=points)))


collectives = st.builds(CollectiveCurve, latency_s=fractions, bandwidth=size_curves())
efficiencies = st.builds(
    Efficiency,
    matmul=st.dictionaries(texts, grid_curves(), max_size=2),
    attention=st.dictionaries(texts, grid_curves(), max_size=2),
    memory=st.dictionaries(texts, size_curves(), max_size=2),
    collectives=st.dictionaries(texts, collectives, max_size=1),
    dispatch_forward_s=fractions,
    dispatch_backward_s=fractions,
    asynchronous=flags,
    communication_overlap=fractions,
    framework_bytes=positive,
    allocator_overhead=fractions,
)  # fmt: skip
accelerators = st.builds(
    AcceleratorSpec,
    name=texts,
    kind=st.sampled_from(["gpu", "tpu", "cpu", "asic"]),
    peak_flops=st.dictionaries(st.sampled_from(["fp32", "bf16", "fp8"]), positive),
    memory_bytes=st.none() | positive,
    memory_bandwidth_bytes_per_s=st.none() | positive,
    tdp_w=st.none() | positive,
    notes=texts,
)
tiers = st.builds(NetworkTier, name=texts, span=sizes, bandwidth_bytes_per_s=positive, latency_s=fractions)
clusters = st.builds(
    ClusterSpec,
    name=texts,
    accelerator=accelerators,
    accelerators_per_node=small,
    num_nodes=small,
    tiers=st.lists(tiers, max_size=3, unique_by=lambda tier: tier.span).map(lambda t: sorted(t, key=lambda x: x.span)),
    efficiency=st.none() | efficiencies,
)
profiles = st.builds(
    HardwareProfile,
    created=texts,
    duration_s=fractions,
    accelerator=accelerators,
    accelerators_per_node=small,
    tier=st.none() | tiers,
    shares=st.dictionaries(small, efficiencies, max_size=2),
    spread=st.dictionaries(texts, fractions, max_size=2),
    versions=st.dictionaries(texts, texts, max_size=2),
)


def assert_survives(noun):
    kind = type(noun)
    assert kind.from_mapping(json.loads(noun.to_json())) == noun
    assert kind.from_mapping(yaml.safe_load(noun.to_yaml())) == noun
    with tempfile.TemporaryDirectory() as folder:
        for name in ("noun.yaml", "noun.json"):
            assert kind.load(noun.save(Path(folder) / name)) == noun
        assert sorted(path.name for path in Path(folder).iterdir()) == ["noun.json", "noun.yaml"]


@settings(max_examples=40)
@given(models())
def test_model(model):
    assert_survives(model)


@settings(max_examples=40)
@given(layouts())
def test_layout(layout):
    assert_survives(layout)


@settings(max_examples=40)
@given(workloads())
def test_workload(workload):
    assert_survives(workload)


@settings(max_examples=40)
@given(clusters)
def test_cluster(cluster):
    assert_survives(cluster)


@settings(max_examples=40)
@given(profiles)
def test_hardware_profile(profile):
    assert_survives(profile)


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\ufeff", "\x00", "\t", "µ", "null", "1", " x "])
def test_awkward_text(mark):
    assert_survives(ModelSpec(name=mark, num_layers=1, hidden_size=8, num_heads=1, vocab_size=8))
    assert_survives(AcceleratorSpec(name=f"a{mark}b", source=mark))


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt2", "gpt-oss-120b"])
def test_catalog_model(name):
    assert_survives(load_model(name))


@pytest.mark.parametrize("name", list_clusters())
def test_catalog_cluster(name):
    assert_survives(load_cluster(name, num_nodes=3))


def test_catalog_models_differ():
    specs = [load_model(name) for name in list_models()]
    assert len({spec.to_json() for spec in specs}) == len(specs)
