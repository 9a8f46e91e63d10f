"""Wrong descriptions are answered with what was set, what was found and what to do."""

from __future__ import annotations

import pytest

from gnomon.errors import LayoutError, SpecError, did_you_mean
from gnomon.plan.checks import check_schedule
from gnomon.spec import AcceleratorSpec, ClusterSpec, HardwareProfile, Layout, ModelSpec, MoESpec, SizeCurve, Workload
from gnomon.spec.catalog import load_accelerator

BATCH = {"seq_len": 8, "global_batch": 6}
MOE = {"num_experts": 2, "experts_per_token": 1, "expert_ffn_size": 8}
SMALL = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "vocab_size": 100}


def explain(noun, data):
    with pytest.raises(SpecError) as caught:
        noun.from_mapping(data, where="plan.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("noun", "data", "message"),
    [
        (ModelSpec, {**SMALL, "num_layer": 3}, "unknown key 'num_layer'. Did you mean 'num_layers'?"),
        (ModelSpec, {**SMALL, "moe": {"num_expert": 3}}, "unknown key 'moe.num_expert'. Did you mean 'num_experts'?"),
        (ModelSpec, {"num_layers": 2}, "missing key 'hidden_size'"),
        (ModelSpec, {**SMALL, "num_heads": 5}, "hidden_size=64 does not divide by num_heads=5"),
        (ModelSpec, {**SMALL, "num_kv_heads": 3}, "by num_kv_heads=3; choose one of [1, 2, 4]"),
        (ModelSpec, {**SMALL, "num_heads": 0}, "'num_heads' is 0"),
        (ModelSpec, {**SMALL, "norm": "rms"}, "'norm' is 'rms': input should be 'layernorm' or 'rmsnorm'"),
        (ModelSpec, {**SMALL, "num_sliding_window_layers": 3}, "set both or neither"),
        (
            ModelSpec,
            {**SMALL, "sliding_window": 8, "num_sliding_window_layers": 3},
            "num_sliding_window_layers=3 exceeds num_layers=2",
        ),
        (Layout, {"dp": 0}, "'dp' is 0"),
        (Layout, {"dp": True}, "'dp' is True: give a number, not true or false"),
        (Layout, {"zero_stage": True}, "'zero_stage' is True: give a number"),
        (Layout, {"first_stage_layers": False}, "'first_stage_layers' is False: give a number"),
        (Layout, {"sequence_parallel": 3}, "'sequence_parallel' is 3"),
        (Workload, {**BATCH, "seq_len": True}, "'seq_len' is True: give a number"),
        (ModelSpec, {**SMALL, "moe": {**MOE, "num_experts": True}}, "'moe.num_experts' is True: give a number"),
        (SizeCurve, {"size": [1, 2], "rate": [True, 3]}, "'rate' is [True, 3]: give a number"),
        (AcceleratorSpec, {"name": "x", "memory_bytes": True}, "'memory_bytes' is True: give a number"),
        (AcceleratorSpec, {"name": "x", "peak_flops": {"bf16": True}}, "'peak_flops' is {'bf16': True}: give a number"),
        (Layout, {"ddp": 2}, "unknown key 'ddp'. Did you mean 'dp'?"),
        (Layout, {"stage": 2}, "Names that contain it: first_stage_layers, last_stage_layers, zero_stage."),
        (Layout, {"dp": 128, "ep": 3}, "dp x cp x tp = 128; the nearest values that do: ep=2 or ep=4"),
        (Layout, {"dp": 128, "ep": 64, "expert_tp": 3}, "the nearest values that do: expert_tp=2"),
        (Layout, {"dp": 128, "ep": 5, "expert_tp": 3}, "values that do: ep=4 with expert_tp=2 or expert_tp=4"),
        (Layout, {"dp": 4, "shard_ranks": 3}, "cp = 4; the nearest values that do: shard_ranks=2 or shard_ranks=4"),
        (Layout, [1], "expected a mapping of keys to values, found list"),
        (
            Workload,
            {**BATCH, "micro_batch": 4},
            "=6 does not divide by micro_batch=4; the nearest values that do: micro_batch=3 or micro_batch=6",
        ),
        (Workload, {**BATCH, "precision": "fp6"}, "'precision' is 'fp6'"),
        (MoESpec, {**MOE, "experts_per_token": 3}, "experts_per_token=3 exceeds num_experts=2"),
    ],
)  # fmt: skip
def test_message(noun, data, message):
    text = explain(noun, data)
    assert message in text
    assert text.startswith(f"{noun.__name__} in plan.yaml: ")


def test_dense_layers_beyond_the_last():
    moe = {**MOE, "num_dense_layers": 3}
    assert "moe.num_dense_layers=3 exceeds num_layers=2" in explain(ModelSpec, {**SMALL, "moe": moe})


def test_shared_experts_and_their_width_go_together():
    moe = {**MOE, "shared_expert_ffn_size": 4}
    assert "num_shared_experts=0 contradicts shared_expert_ffn_size=4" in explain(MoESpec, moe)


def test_shared_experts_are_as_wide_as_routed_ones_by_default():
    moe = MoESpec(**MOE, num_shared_experts=3)
    assert moe.shared_expert_ffn_size == 24


def test_derived_sizes():
    spec = ModelSpec(**SMALL)
    assert (spec.num_kv_heads, spec.head_dim, spec.ffn_hidden_size) == (4, 16, 256)
    assert (spec.query_size, spec.kv_size) == (64, 64)


def test_tiers_out_of_order():
    tiers = [{"name": "a", "span": 8, "bandwidth_bytes_per_s": 1}, {"name": "b", "span": 4, "bandwidth_bytes_per_s": 1}]
    data = {"name": "x", "accelerator": {"name": "y"}, "accelerators_per_node": 8, "tiers": tiers}
    assert "tiers must be ordered from the innermost to the outermost; their spans are [8, 4]" in explain(
        ClusterSpec, data
    )


def test_nouns_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        ModelSpec(**SMALL).num_layers = 3
    with pytest.raises(TypeError):
        load_accelerator("h200").peak_flops["bf16"] = 1.0


def test_accumulation():
    workload = Workload(seq_len=8, global_batch=24, micro_batch=2)
    assert workload.accumulation(dp=3) == 4
    assert workload.tokens_per_step == 192
    with pytest.raises(LayoutError, match=r"global_batch=24 .* dp=5 = 10\. Set global_batch to 20"):
        workload.accumulation(dp=5)


@pytest.mark.parametrize(
    ("layout", "batch", "message"),
    [
        ({"pp": 4, "vpp": 2}, 24, "Set global_batch=16 or global_batch=32, or another micro_batch, or vpp=1."),
        (
            {"pp": 4, "schedule": "v-min"},
            20,
            "Set global_batch=32, or another micro_batch, or a schedule from ['gpipe',",
        ),
        ({"pp": 4, "schedule": "dualpipe"}, 36, "Set global_batch=32 or global_batch=40, or another micro_batch"),
        ({"pp": 5, "schedule": "dualpipe"}, 40, "Set a schedule from ['gpipe', '1f1b', 'zb-h1', 'zb-h2', 'zb-v',"),
    ],
)
def test_a_schedule_that_cannot_run_names_the_nearest_batches(layout, batch, message):
    with pytest.raises(LayoutError) as caught:
        check_schedule(Layout(dp=4, **layout), Workload(seq_len=8, global_batch=batch, micro_batch=1))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "valid", "sentence"),
    [
        ("h100", ("h800", "h100-sxm", "dgx-h100"), "Names that contain it: dgx-h100, h100-sxm."),
        ("h100", ("h800", "h100-sxm"), "Did you mean 'h100-sxm'?"),
        ("H100", ("h800", "dgx-h100"), "Did you mean 'dgx-h100'?"),
        ("tran", ("train", "transform", "transpose"), "Did you mean 'train'?"),
        ("seq_le", ("seq_len", "encoder_seq_len"), "Did you mean 'seq_len'?"),
        ("mi300", ("mi300a", "mi300x", "mi250"), "Names that contain it: mi300a, mi300x."),
        ("x", ("axis", "index"), "Valid names: axis, index."),
    ],
)
def test_names_that_contain_what_was_typed_go_before_those_that_look_like_it(typed, valid, sentence):
    assert did_you_mean(typed, valid) == sentence


def test_a_profile_knows_only_the_shares_that_were_measured():
    profile = HardwareProfile(created="2025-01-01", accelerator={"name": "cpu", "kind": "cpu"}, shares={})
    with pytest.raises(SpecError, match=r"not 2\. Measure that too: gnomon calibrate --ranks 2"):
        profile.cluster(2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "dp: [1", "is not valid YAML"),
        ("a.json", "{", "is not valid JSON"),
        ("a.yaml", "- 1", "must hold a mapping"),
        ("a.yaml", "", "is empty. Give a YAML or JSON file"),
    ],
)
def test_malformed_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        Layout.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("noun", "where", "start"),
    [
        (Layout, "layout", "layout: unknown key 'x'"),
        (ModelSpec, "model", "model: missing key 'num_layers'"),
        (Layout, "parallelism", "Layout in parallelism: unknown key 'x'"),
        (Layout, "", "Layout: unknown key 'x'"),
    ],
)
def test_an_error_says_once_where_it_is(noun, where, start):
    with pytest.raises(SpecError) as caught:
        noun.from_mapping({"x": 1}, where=where)
    assert str(caught.value).startswith(start)


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match=r"'/dev/null' is no regular file\. Give a YAML or JSON file"):
        ModelSpec.load("/dev/null")
    with pytest.raises(SpecError, match=r"is a folder\. Give a YAML or JSON file"):
        ModelSpec.load(tmp_path)
    (tmp_path / "twice.yaml").write_text("name: a\nnested: {b: 1, c: 2,\n  b: 3}\n")
    with pytest.raises(
        SpecError, match=r"twice.yaml' is not valid YAML: line 3, column 3: key 'b' is given twice"
    ) as found:
        ModelSpec.load(tmp_path / "twice.yaml")
    assert "\n" not in str(found.value)
    with pytest.raises(SpecError, match="File not found"):
        Layout.load(tmp_path / "none.yaml")


def test_yaml_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("dp: !!python/object/apply:os.system ['true']")
    with pytest.raises(SpecError, match="is not valid YAML"):
        Layout.load(path)
