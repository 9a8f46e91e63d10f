"""The layers of the trained network against formulas written out: windows, latents, norms, recomputation."""

from __future__ import annotations

import itertools

import pytest

from gnomon.spec import ModelSpec
from gnomon.spec.catalog import load_model, load_stack

torch = pytest.importorskip("torch", reason="PyTorch is not installed; the layers cannot be built")

SIZES = {
    "num_layers": 4, "hidden_size": 24, "num_heads": 4, "vocab_size": 50, "max_seq_len": 16,
    "norm": "rmsnorm", "position": "rope", "tied_embeddings": False,
}  # fmt: skip
WINDOWED = {**SIZES, "sliding_window": 5, "num_sliding_window_layers": 2}
LATENT = {
    **SIZES,
    "mla": {"q_lora_rank": 10, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5},
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def attention_by_hand(query, key, value, window):
    """Heads (batch, heads, sequence, width), one row of scores after the other."""
    rows = []
    for place in range(query.shape[2]):
        first = 0 if window is None else max(0, place + 1 - window)
        scores = query[:, :, place : place + 1] @ key[:, :, first : place + 1].transpose(2, 3)
        rows.append((scores / query.shape[-1] ** 0.5).softmax(-1) @ value[:, :, first : place + 1])
    return torch.cat(rows, dim=2)


@pytest.mark.parametrize("window", [None, 1, 5, 12, 40])
def test_a_token_attends_to_itself_and_the_window_before_it(window):
    from gnomon.train.attention import CausalAttention

    query, key, value = (torch.randn(2, 3, 12, 8, dtype=torch.float64) for _ in range(3))
    expected = attention_by_hand(query, key, value, window)
    torch.testing.assert_close(CausalAttention(window)(query, key, value), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("gemma-2-2b", list(range(1, 26, 2))),  # each second layer
        ("gemma-3-12b", list(range(5, 48, 6))),  # each sixth layer
        ("llama-4-scout", list(range(3, 48, 4))),  # each fourth layer
        ("mistral-7b", []),
        ("llama-3.1-8b", list(range(32))),
    ],
)
def test_layers_with_full_attention(name, full):
    from gnomon.train.block import window_of

    spec = load_model(name)
    assert [i for i in range(spec.num_layers) if window_of(spec, i) is None] == full


def test_latent_attention_is_its_formula():
    from gnomon.train.gpt import GPT

    model = GPT(ModelSpec(**LATENT)).double()
    attention, x = model.blocks[0].attention, torch.randn(2, 9, 24, dtype=torch.float64)
    cosine, sine = model.rotation(torch.arange(9))

    def turned(part):  # (batch, sequence, heads, 4): pairs (0, 2) and (1, 3) turned by their place
        places = torch.arange(9, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.01], dtype=torch.float64)
        angle = torch.exp(1j * places)[None, :, None]
        both = torch.complex(part[..., :2], part[..., 2:]) * angle
        return torch.cat([both.real, both.imag], dim=-1)

    def rms(part, norm):
        return part / (part.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    query = rms(x @ attention.query_down.weight.T, attention.query_latent_norm) @ attention.query_up.weight.T
    query = query.unflatten(-1, (4, 10))
    down = x @ attention.key_value_down.weight.T
    up = (rms(down[..., :8], attention.latent_norm) @ attention.key_value_up.weight.T).unflatten(-1, (4, 11))
    shared = turned(down[..., None, 8:]).expand(-1, -1, 4, -1)
    key = torch.cat([up[..., :6], shared], dim=-1)
    query = torch.cat([query[..., :6], turned(query[..., 6:])], dim=-1)
    parts = (part.transpose(1, 2) for part in (query, key, up[..., 6:]))
    expected = attention_by_hand(*parts, None).transpose(1, 2).flatten(2) @ attention.output.weight.T
    torch.testing.assert_close(attention(x, (cosine, sine)), expected, rtol=1e-6, atol=1e-9)


def test_blocks_side_by_side_and_with_four_norms_are_their_formulas():
    from gnomon.train.block import Block

    x = torch.randn(2, 7, 24)
    one, two = (Block(ModelSpec(**SIZES, parallel_block=True, num_norms_per_layer=n), 0) for n in (1, 2))
    seen = one.attention_norm(x)
    torch.testing.assert_close(one(x, None), x + one.attention(seen, None) + one.mlp(seen))
    torch.testing.assert_close(two(x, None), x + two.attention(two.attention_norm(x), None) + two.mlp(two.mlp_norm(x)))
    four = Block(ModelSpec(**SIZES, num_norms_per_layer=4), 0)
    middle = x + four.attention_output_norm(four.attention(four.attention_norm(x), None))
    torch.testing.assert_close(four(x, None), middle + four.mlp_output_norm(four.mlp(four.mlp_norm(middle))))


@pytest.mark.parametrize("fields", [SIZES, WINDOWED, LATENT], ids=["plain", "windows", "latents"])
@pytest.mark.parametrize(("recompute", "share"), [("selective", 1.0), ("full", 1.0), ("full", 0.5)])
def test_recomputation_changes_no_bit_and_keeps_less(fields, recompute, share):
    from gnomon.train.gpt import GPT

    spec, tokens = ModelSpec(**fields), torch.randint(0, 50, (2, 16))
    plain, again = GPT(spec), GPT(spec, recompute, share)
    again.load_state_dict(plain.state_dict())

    def kept_bytes(model):
        kept: dict[int, int] = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(tokens).square().mean()
        loss.backward()
        return sum(kept.values())

    before, after = kept_bytes(plain), kept_bytes(again)
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    weights = sum(parameter.nbytes for parameter in plain.parameters())
    if recompute == "full":  # of each layer that recomputes, its input alone
        layer = (before - after) / (4 * share)
        assert layer > 0.8 * (before - weights) / 5
    else:
        assert after <= before


@pytest.mark.parametrize(
    ("layers", "share", "expected"), [(4, 1.0, [0, 1, 2, 3]), (4, 0.5, [1, 3]), (6, 0.33, [2, 5]), (3, 0.1, [2])]
)
def test_layers_that_recompute_lie_at_equal_distances(layers, share, expected):
    from gnomon.train.block import recompute_of

    assert [i for i in range(layers) if recompute_of(i, layers, "full", share) == "full"] == expected


def test_every_kind_of_layer_has_the_counted_parameters():
    from gnomon.plan.parameters import count_parameters
    from gnomon.train.gpt import GPT

    direct = {**LATENT["mla"], "q_lora_rank": None}
    kinds = [
        {"parallel_block": True, "num_norms_per_layer": 1},
        {"parallel_block": True},
        {"num_norms_per_layer": 4},
        {"mla": LATENT["mla"]},
        {"mla": direct},
    ]
    for kind, norm, bias in itertools.product(kinds, ("rmsnorm", "layernorm"), (True, False)):
        spec = ModelSpec(**{**SIZES, **kind, "norm": norm, "norm_bias": bias, "attention_bias": bias})
        assert count_parameters(spec).total == sum(p.numel() for p in GPT(spec).parameters()), spec


def test_recomputation_leaves_out_the_last_product():
    """What the last product returns goes into the next layer's input alone: the planner's `stops_early`."""
    from gnomon.train.recompute import recomputed

    up, down = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)

    def block(x):
        return x + down(torch.nn.functional.gelu(up(x)))

    class Products(torch.utils._python_dispatch.TorchDispatchMode):
        forward = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            self.forward += function is torch.ops.aten.addmm.default
            return function(*arguments, **(options or {}))

    result = recomputed(block, torch.randn(4, 8, requires_grad=True))
    with Products() as products:
        result.sum().backward()
    assert products.forward == 1
    assert load_stack("gnomon").stops_early
