"""Which layouts the trainer accepts, and what it says about the others before any rank starts."""

import pytest

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.own_loop import check_own_model
from gnomon.spec import Layout, ModelSpec
from gnomon.spec.catalog import list_models, load_model
from training_fixtures import TINY_MODEL, tiny_config

WINDOWED = {"sliding_window": 8, "num_sliding_window_layers": 2}
MOE = {"moe": {"num_experts": 6, "experts_per_token": 2, "expert_ffn_size": 8}}


def config(tmp_path, layout, model=None, workload=None, **changes):
    base = {"seq_len": 32, "global_batch": 8, "micro_batch": 2}
    model = {**TINY_MODEL, "num_layers": 4, "num_heads": 4, **(model or {})}
    return tiny_config(tmp_path / "run", layout=layout, model=model, workload={**base, **(workload or {})}, **changes)


def test_a_layout_beyond_dp_chooses_the_mesh_with_its_options(tmp_path):
    chosen = config(tmp_path, {"tp": 2}, workload={"precision": "bf16"})
    assert chosen.strategy_name == "mesh"
    assert chosen.strategy_options == {"layout": Layout(tp=2), "precision": "bf16"}
    assert config(tmp_path, {"dp": 2}).strategy_name == "auto"
    assert config(tmp_path, {"dp": 2}, strategy="ddp").strategy_options == {}
    assert config(tmp_path, {"dp": 2}, strategy="mesh").strategy_options["layout"] == Layout(dp=2)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ({"tp": 3}, {}, "tp=3 does not divide num_heads=4.*tp=2 or tp=4"),
        ({"tp": 4}, {"model": {"num_kv_heads": 2}}, "tp=4 does not divide num_kv_heads=2.*tp=2"),
        ({"pp": 3}, {}, "do not divide the 4 layers.*pp=2 or pp=4"),
        ({"pp": 2, "vpp": 4}, {}, "8 pipeline stages .* do not divide the 4 layers"),
        ({"pp": 3, "first_stage_layers": 1}, {}, "leave 3 of 4 layers"),
        ({"cp": 3}, {}, "cp=3 splits seq_len=32 into 6 equal pieces.*multiple of 6, such as 30"),
        ({"cp": 3, "context_parallel": "all_to_all"}, {}, "does not divide num_heads=4"),
        ({"dp": 4, "ep": 4}, {"model": MOE}, "ep=4 does not divide the 6 experts.*ep=3 or ep=6"),
        ({"dp": 2, "ep": 2}, {}, "split experts, but 'tiny' has none"),
        ({"dp": 2, "expert_tp": 2}, {"model": MOE}, "expert_tp=2 can be planned"),
        ({"pp": 2, "schedule": "zb-h2"}, {}, "torch.distributed.pipelining does not have it.*gpipe"),
        ({"pp": 2, "schedule": "dualpipe"}, {}, "does not have it"),
        ({"pp": 4}, {"workload": {"micro_batch": 4}}, "needs at least pp=4 micro-batches"),
        ({"dp": 2, "zero_stage": 1}, {}, "zero_stage=1 can be planned.*Set zero_stage=2"),
        ({"cp": 2}, {"model": WINDOWED}, "sliding_window=8 < seq_len=32.*context_parallel=all_to_all"),
        ({"dp": 2, "offload_optimizer": 0.5}, {}, "offload_optimizer=0.5 can be planned"),
        ({"tp": 2}, {"strategy": "ddp"}, "The layout is tp=2, but strategy=ddp splits the batch only"),
    ],
)
def test_what_cannot_be_split_is_refused_with_what_can(tmp_path, layout, changes, message):
    with pytest.raises(LayoutError, match=message):
        config(tmp_path, layout, **changes)


def decoders() -> list[ModelSpec]:
    models = [load_model(name) for name in list_models()]
    return [model for model in models if model.encoder is None and model.diffusion is None]


@pytest.mark.parametrize("name", ["t5-small", "dit-s-2"])
def test_what_is_no_decoder_is_refused(name):
    pytest.importorskip("torch", reason="PyTorch is not installed; the networks cannot be built")
    from gnomon.errors import SpecError
    from gnomon.train.gpt import GPT

    with pytest.raises(SpecError, match="the GPT trainer does not build"):
        GPT(load_model(name))


def test_every_decoder_of_the_catalog_is_built_or_refused_by_the_planner_first():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; the networks cannot be built")
    from gnomon.errors import SpecError
    from gnomon.plan.parameters import count_parameters
    from gnomon.train.gpt import GPT

    refused = []
    for whole in decoders():
        name = whole.name
        layers = min(whole.num_layers, 4)  # enough for dense and sparse ones, with windows and without
        windows = round(layers * whole.num_sliding_window_layers / whole.num_layers)
        fewer = {"num_layers": layers, "num_sliding_window_layers": windows}
        if whole.moe is not None:
            fewer["moe"] = whole.moe.model_copy(update={"num_dense_layers": min(whole.moe.num_dense_layers, 2)})
        spec = whole.model_copy(update=fewer)
        try:
            with torch.device("meta"):
                network = GPT(spec)
        except SpecError:
            refused.append(name)
            with pytest.raises(PlanError):
                check_own_model(spec)
            continue
        check_own_model(spec)
        assert sum(p.numel() for p in network.parameters()) == count_parameters(spec).total, name
    # multi-token prediction, balancing biases, attention sinks
    assert refused == ["deepseek-v3", "glm-4.5", "glm-4.5-air", "gpt-oss-120b", "gpt-oss-20b", "kimi-k2"]


def test_multi_token_prediction_is_planned_but_not_trained():
    with pytest.raises(PlanError, match="multi-token-prediction"):
        check_own_model(load_model("deepseek-v3"))
