"""Micro-benchmarks of memory-bound operators by size, one for each kind of `gnomon.plan.traffic`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.plan.traffic import TRAFFIC, memory_key, memory_keys
from gnomon.profile.calibration.compute import DTYPES, net_s
from gnomon.profile.calibration.ring import keeping, rotating
from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.spec import SizeCurve
from gnomon.train.attention import rotate
from gnomon.train.feed_forward import activate

ELEMENTS = {
    "cpu": (2**14, 2**17, 2**20, 2**23),
    "cuda": (2**17, 2**20, 2**23, 2**26),
}
WIDTH = 256
VOCABULARY = 256
Benchmark = Callable[[], object]
Differentiable = tuple[Callable[[], Tensor], tuple[Tensor, ...]]
Make = Callable[[int, torch.dtype, torch.device], Differentiable]


def memory_curves(watch: Stopwatch, precisions: tuple[str, ...], dispatch_s: float) -> dict[str, SizeCurve]:
    """Measure every kind at every size; return {key: bytes/s by bytes moved}."""
    curves = {}
    for kind, precision in memory_keys(precisions):
        sizes, rates = [], []
        for elements in ELEMENTS[watch.device.type]:
            function = benchmark(kind, elements, DTYPES[precision], watch.device)
            moved = elements * TRAFFIC[kind].bytes_per_element(precision)
            elapsed = net_s(watch.time_s("memory", function), dispatch_s)
            sizes.append(moved)
            rates.append(moved / elapsed)
        curves[memory_key(kind, precision)] = SizeCurve(size=tuple(sizes), rate=tuple(rates))
    return curves


def benchmark(kind: str, elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    """Return a function that runs one operator of this kind on `elements` elements, with operands out of cache."""
    forward_kind = kind.removesuffix("_backward")
    size = 4.0 * elements
    if forward_kind in ("adamw", "gradient_norm"):
        update = rotating(lambda: _update(forward_kind, elements, device), 4.0 * size)
        return lambda: update()()
    if kind in _SIMPLE:
        simple = rotating(lambda: _SIMPLE[kind](elements, dtype, device), size)
        return keeping(lambda: simple()(), size)
    make = _DIFFERENTIABLE[forward_kind]
    if kind == forward_kind:
        return keeping(make(elements, dtype, device)[0], size)
    return _backward(make, elements, dtype, device)


def _backward(make: Make, elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    def graph() -> tuple[Tensor, tuple[Tensor, ...]]:
        forward, inputs = make(elements, dtype, device)
        return forward(), inputs

    saved = rotating(graph, 8.0 * elements)
    gradient = torch.ones_like(saved()[0])

    def backward() -> tuple[Tensor, ...]:
        output, inputs = saved()
        return torch.autograd.grad(output, inputs, gradient, retain_graph=True)

    return backward


def _tensor(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.rand(max(1, elements // WIDTH), WIDTH, device=device).to(dtype)


def _copy(elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    parts = _tensor(elements, dtype, device).chunk(2, dim=-1)
    return lambda: torch.cat(parts, dim=-1)


def _multiply(elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    x, y = _tensor(elements, dtype, device), _tensor(elements, dtype, device)
    return lambda: x * y


def _residual(elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    x, y = _tensor(elements, torch.float32, device), _tensor(elements, dtype, device)
    return lambda: x + y


def _gradient_add(elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
    x, y = _tensor(elements, torch.float32, device), _tensor(elements, torch.float32, device)
    return lambda: x.add_(y)


def _cast(source: torch.dtype, target: torch.dtype) -> Callable[[int, torch.dtype, torch.device], Benchmark]:
    def make(elements: int, dtype: torch.dtype, device: torch.device) -> Benchmark:
        x = _tensor(elements, source, device)
        return lambda: x.to(target)

    return make


_SIMPLE: dict[str, Callable[[int, torch.dtype, torch.device], Benchmark]] = {
    "copy": _copy,
    "multiply": _multiply,
    "residual": _residual,
    "gradient_add": _gradient_add,
    "cast_down": _cast(torch.float32, torch.bfloat16),
    "cast_up": _cast(torch.bfloat16, torch.float32),
}


def _activation(name: str) -> Make:
    def make(elements: int, dtype: torch.dtype, device: torch.device) -> Differentiable:
        x = _tensor(elements, dtype, device).requires_grad_()
        return lambda: activate(x, name), (x,)

    return make


def _norm(name: str) -> Make:
    def make(elements: int, dtype: torch.dtype, device: torch.device) -> Differentiable:
        x = _tensor(elements, torch.float32, device).requires_grad_()
        layer = (nn.RMSNorm(WIDTH, eps=1e-6) if name == "rmsnorm" else nn.LayerNorm(WIDTH, bias=False)).to(device)
        return lambda: layer(x), (x, layer.weight)

    return make


def _rope(elements: int, dtype: torch.dtype, device: torch.device) -> Differentiable:
    head_dim, heads = 64, 4
    length = max(1, min(256, elements // (head_dim * heads)))
    batch = max(1, elements // (head_dim * heads * length))
    x = torch.randn(batch, length, heads, head_dim, device=device).to(dtype).requires_grad_()
    cosine, sine = torch.rand(2, length, head_dim // 2, device=device)
    return lambda: rotate(x, cosine, sine), (x,)


def _embedding(elements: int, dtype: torch.dtype, device: torch.device) -> Differentiable:
    table = torch.randn(VOCABULARY, WIDTH, device=device, requires_grad=True)
    tokens = torch.randint(0, VOCABULARY, (max(1, elements // WIDTH),), device=device)
    return lambda: F.embedding(tokens, table), (table,)


def _cross_entropy(elements: int, dtype: torch.dtype, device: torch.device) -> Differentiable:
    rows = max(1, elements // VOCABULARY)
    logits = torch.randn(rows, VOCABULARY, device=device, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (rows,), device=device)
    return lambda: F.cross_entropy(logits, targets), (logits,)


_DIFFERENTIABLE: dict[str, Make] = {
    "rope": _rope,
    "embedding": _embedding,
    "cross_entropy": _cross_entropy,
    "layernorm": _norm("layernorm"),
    "rmsnorm": _norm("rmsnorm"),
    "gelu": _activation("gelu"),
    "gelu_tanh": _activation("gelu_tanh"),
    "silu": _activation("silu"),
    "relu": _activation("relu"),
}


def _update(kind: str, elements: int, device: torch.device) -> Benchmark:
    parameters = [nn.Parameter(_tensor(elements // 4, torch.float32, device)) for _ in range(4)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    if kind == "gradient_norm":
        return lambda: nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    return optimizer.step
