"""Planned memory against the bytes that PyTorch's allocator really hands out."""

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from gnomon.plan.cases import Cases
from gnomon.plan.memory import training_memory
from gnomon.plan.planner import plan
from gnomon.spec import AcceleratorSpec, Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model, load_stack
from gnomon.train.gpt import GPT
from plan_fixtures import constant_cluster

SEQ_LEN, BATCH = 128, 8
LLAMA = {
    "norm": "rmsnorm",
    "position": "rope",
    "gated_mlp": True,
    "activation": "silu",
    "num_kv_heads": 1,
    "qk_norm": True,
    "tied_embeddings": False,
}


LATENT = {
    **{name: value for name, value in LLAMA.items() if name not in ("num_kv_heads", "qk_norm")},
    "mla": {"q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32},
}


def peak_growth_bytes(spec: ModelSpec, precision: str, layout: Layout) -> int:
    """Return how far one training step raises the bytes of live tensors, from the allocator's own events."""
    model = GPT(spec, layout.recompute, layout.recompute_share)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, spec.vocab_size, (BATCH, SEQ_LEN))

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(tokens).flatten(0, 1).float(), tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total, peak = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def planned_and_measured(style: dict, precision: str, layout: Layout) -> tuple[float, int]:
    """Return the peak above weights and optimizer state, planned and as the allocator saw it."""
    spec = ModelSpec(num_layers=4, hidden_size=128, num_heads=4, vocab_size=256, max_seq_len=SEQ_LEN, **style)
    processor = constant_cluster(accelerator=AcceleratorSpec(name="processor", kind="cpu"))
    workload = Workload(seq_len=SEQ_LEN, global_batch=BATCH, precision=precision)
    memory = training_memory(Cases.of(spec, processor, layout, workload, load_stack("gnomon")))
    planned = float(memory.tensors[0] - memory.weights[0] - memory.optimizer[0])
    return planned, peak_growth_bytes(spec, precision, layout)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("style", [{}, LLAMA, LATENT], ids=["gpt", "llama", "latent"])
def test_peak_of_a_real_step_within_six_percent(style, precision):
    planned, measured = planned_and_measured(style, precision, Layout())
    assert planned == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("style", [{}, LLAMA, LATENT], ids=["gpt", "llama", "latent"])
def test_peak_with_recomputation_within_eight_percent(style, share, precision):
    planned, measured = planned_and_measured(style, precision, Layout(recompute="full", recompute_share=share))
    assert planned == pytest.approx(measured, rel=0.08)
    assert measured < 0.85 * planned_and_measured(style, precision, Layout())[1]


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_layers_that_are_not_computed_again_keep_everything(mode: str) -> None:
    """Half of the layers computed again keep half of what all of them and none of them keep together."""
    model, cluster = load_model("gpt3-175b"), load_cluster("dgx-a100", num_nodes=8)
    workload = Workload(seq_len=2048, global_batch=64, precision="bf16", stack="megatron", attention_kernel="unfused")

    def kept(recompute: str, share: float) -> float:
        layout = Layout(tp=8, pp=8, recompute=recompute, recompute_share=share)
        return sum(plan(model, cluster, layout, workload).activation_tensors.values())

    assert kept(mode, 0.5) == pytest.approx((kept("none", 1.0) + kept(mode, 1.0)) / 2, rel=1e-12)
