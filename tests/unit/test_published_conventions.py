"""How sources count FLOPs, and what their figures mean as step times."""

import numpy as np
import pytest

from gnomon.errors import PlanError
from gnomon.plan.published.conventions import Convention, TokenFlops, convention_of
from gnomon.plan.published.memory_kinds import memory_kind
from gnomon.plan.published.predict import predict
from gnomon.plan.published.targets import target_of
from gnomon.plan.sizes import ModelSizes
from gnomon.spec import ModelSpec

LAYERS, HIDDEN, SEQ, VOCAB = 12, 768, 1024, 50304
FULL, CAUSAL = Convention("full"), Convention("causal")
MEGATRON = Convention("full", recompute=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("not stated", None),
        ("LoRA: 6N, full attention", None),
        ("NeMo formula (attention factor not stated)", None),
        ("between 6N and 8N", None),
        ("6*matmul params incl. LM head + causal (half) attention; no recompute", CAUSAL),
        ("6*matmul params incl. LM head + full (non-causal) attention; no recompute", FULL),
        ("6*matmul+head, attention not counted", Convention("none")),
        ("MFU = 6N + 12LHQT (full non-causal), no remat", FULL),
        ("6*(N-emb)+12*L*H*Q*T", FULL),
        ("as in PaLM", FULL),
        *(
            (words, FULL)
            for words in ("noncausal", "non causal attention", "6N, no causal halving", "causal mask not used")
        ),
        ("6N (N incl. embeddings and learned positions) + full non-causal attention", Convention("full", True)),
        ("F=96*B*s*l*h^2*(1+s/6h+V/16lh) incl. full activation recompute (no recompute of head)", MEGATRON),
        ("24*ckpt_factor(4)*B*s*l*h^2*(1+s/6h+V/16lh)", MEGATRON),
        ("not stated; fits 96BSlh^2 formula with recompute", MEGATRON),
        ("72BLsh^2 formula", FULL),
        ("72*L*h^2*(1+s/6h+V/12Lh) x 4/3 recompute", MEGATRON),
        ("4*2*P*tokens (recompute counted, no attention term)", Convention("none", True, True)),
    ],
)
def test_conventions_are_read_from_their_descriptions(text: str, expected: Convention | None) -> None:
    assert convention_of(text) == expected


@pytest.fixture(scope="module")
def flops() -> TokenFlops:
    spec = ModelSpec(name="gpt", num_layers=LAYERS, hidden_size=HIDDEN, num_heads=12, vocab_size=VOCAB, max_seq_len=SEQ)
    return TokenFlops.of(ModelSizes.of(spec), np.asarray([float(SEQ)]))


def test_formulas_of_the_papers(flops: TokenFlops) -> None:
    body = LAYERS * HIDDEN**2
    attention = 1 + SEQ / (6 * HIDDEN)
    head = VOCAB / (LAYERS * HIDDEN)
    # arXiv 2104.04473, equation 3, and the same without recomputation
    megatron = 96 * body * (attention + head / 16)
    assert flops.count(MEGATRON, recompute=True)[0] == pytest.approx(megatron)
    assert flops.count(MEGATRON)[0] == pytest.approx(72 * body * (attention + head / 12))
    # 6 per weight of a product, 12 l h s for the square of attention or half of it
    weights = 12 * body + VOCAB * HIDDEN
    assert flops.count(FULL)[0] == pytest.approx(6 * weights + 12 * LAYERS * HIDDEN * SEQ)
    assert flops.count(CAUSAL)[0] == pytest.approx(6 * weights + 6 * LAYERS * HIDDEN * SEQ)
    assert flops.count(Convention("none"))[0] == pytest.approx(6 * weights)
    # a tied table counts once, learned positions only where embeddings count
    assert flops.count(Convention("none", embeddings=True))[0] == pytest.approx(6 * (weights + SEQ * HIDDEN))


ROW = {
    "id": "a", "source": "Megatron-LM", "year": "2021", "hardware": "A100-80GB", "n_accel": "8", "n_layers": "24",
    "hidden": "2048", "n_heads": "16", "vocab": "51200", "seq_len": "2048", "gbs": "64", "mbs": "4", "tp": "1",
    "pp": "1", "precision": "fp16", "recompute": "full", "flash_attention": "0",
}  # fmt: skip
TOKENS = 64 * 2048
PRODUCTS, SQUARE, HEAD = 24 * 72 * 2048**2, 24 * 12 * 2048 * 2048, 6 * 51200 * 2048


@pytest.mark.parametrize(
    ("outcomes", "step_time_s", "basis"),
    [
        ({"step_time_s": "4", "derived_step_time_s": "5", "tokens_per_s_per_accel": "1"}, 4.0, "step_time_s"),
        ({"derived_step_time_s": "5", "tokens_per_s_per_accel": "1"}, 5.0, "derived_step_time_s"),
        ({"tokens_per_s_per_accel": "4096", "mfu_pct": "1"}, TOKENS / 8 / 4096, "tokens_per_s_per_accel"),
        (
            {"tflops_per_accel": "100", "flop_convention": "causal attention"},
            (PRODUCTS + SQUARE / 2 + HEAD) * TOKENS / 8 / 100e12,
            "tflops_per_accel",
        ),
        (
            {"tflops_per_accel": "100", "chk_method": "96*L*h^2 (recompute counted)"},
            (4 / 3 * (PRODUCTS + SQUARE) + HEAD) * TOKENS / 8 / 100e12,
            "tflops_per_accel",
        ),
        (
            {"mfu_pct": "50", "flop_convention": "96*B*s*l*h^2, recompute counted"},
            (PRODUCTS + SQUARE + HEAD) * TOKENS / 8 / 156e12,
            "mfu_pct",
        ),
        (
            {"mfu_pct": "50", "peak_tflops_used": "200", "flop_convention": "full attention"},
            (PRODUCTS + SQUARE + HEAD) * TOKENS / 8 / 100e12,
            "mfu_pct",
        ),
        (
            {"hfu_pct": "50", "flop_convention": "full attention"},
            (4 / 3 * (PRODUCTS + SQUARE) + HEAD) * TOKENS / 8 / 156e12,
            "hfu_pct",
        ),
        (
            {"tflops_per_accel": "100", "flop_convention": "not stated"},
            None,
            "how the source counts FLOPs is not known",
        ),
        ({}, None, "nothing was measured"),
    ],
)
def test_what_was_measured_as_a_step_time(outcomes: dict, step_time_s: float | None, basis: str) -> None:
    row = {**ROW, **outcomes}
    found = target_of(row, predict([row])[0])
    assert found.basis == basis
    assert found.step_time_s == (None if step_time_s is None else pytest.approx(step_time_s))


@pytest.mark.parametrize("value", ["-1", "0", "fast", "nan", "1e-320", "1e300"])
def test_a_measured_value_must_be_a_positive_number(value: str) -> None:
    row = {**ROW, "step_time_s": value}
    with pytest.raises(PlanError, match="column step_time_s is"):
        target_of(row, predict([row])[0])


@pytest.mark.parametrize(
    ("text", "quantity", "unit", "ends"),
    [
        ("", "device", 1e9, False),
        ("GB, nvidia-smi-like, first/last node max (with embedding)", "device", 1e9, True),
        ("GB max of first/last nodes with embedding", "device", 1e9, True),
        ('GB? "max_memory"', "device", 1e9, False),
        ("torch max_allocated GiB", "allocated", 2.0**30, False),
        ("max_reserved GiB", "reserved", 2.0**30, False),
        ("peak GiB, max over ranks", "reserved", 2.0**30, False),
        ("max_memory_allocated, MiB", "allocated", 2.0**20, False),
        ("GB, converted from MiB, allocated", "allocated", 1e9, False),
        ("MiB converted to GB", "device", 1e9, False),
        ("GB (source in MiB)", "device", 1e9, False),
        ("nvidia-smi MiB -> GB", "device", 1e9, False),
        ("GB", "device", 1e9, False),
        ("GiB", "device", 2.0**30, False),
    ],
)
def test_kinds_of_memory(text: str, quantity: str, unit: float, ends: bool) -> None:
    assert memory_kind(text) == (quantity, unit, ends)
