"""Micro-benchmarks of matrix multiply and attention by shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gnomon.plan.flops import attention_flops, matmul_flops
from gnomon.profile.calibration.ring import keeping, rotating
from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.spec import GridCurve

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MATMUL_AXES = {
    "cpu": ((128.0, 512.0, 2048.0), (64.0, 256.0, 1024.0), (64.0, 256.0, 1024.0)),
    "cuda": ((256.0, 2048.0, 16384.0), (128.0, 1024.0, 4096.0, 16384.0), (128.0, 1024.0, 4096.0)),
}
ATTENTION_AXES = {
    "cpu": ((32.0, 128.0, 256.0, 512.0, 1024.0), (32.0, 64.0, 128.0)),
    "cuda": ((128.0, 512.0, 2048.0, 8192.0), (64.0, 128.0)),
}
ATTENTION_TOKENS = {"cpu": 2048, "cuda": 16384}
HEADS = 4
ATTENTION_SLOTS = 3  # attention computes long on what it reads, so a few operands are out of cache enough


def matmul_curves(watch: Stopwatch, precision: str, dispatch_s: float) -> Iterator[tuple[str, GridCurve]]:
    """Measure y = x W^T and its two gradients over the grid of (m, n, k); yield {dtype.phase: curve} items."""
    axes = MATMUL_AXES[watch.device.type]
    rates: dict[str, list[float]] = {"forward": [], "grad_input": [], "grad_weight": []}
    for m, n, k in _grid(axes):
        for phase, function in _matmul_functions(int(m), int(n), int(k), DTYPES[precision], watch.device).items():
            elapsed = net_s(watch.time_s(f"matmul {precision}", function), dispatch_s)
            rates[phase].append(float(matmul_flops(m, n, k)) / elapsed)
    for phase, values in rates.items():
        yield f"{precision}.{phase}", GridCurve(axes=axes, rate=tuple(values))


def _matmul_functions(
    m: int, n: int, k: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Callable[[], Tensor]]:
    """Return y = x W^T and both gradients; x was just produced in forward and long ago in backward."""
    # equal numbers switch fewer transistors: a GPU at its power limit would clock higher than on real data
    fill = torch.randn if device.type == "cuda" else torch.ones
    x, weight, gradient = (fill(shape, dtype=dtype, device=device) for shape in ((m, k), (n, k), (m, n)))
    weights = rotating(lambda: fill((n, k), dtype=dtype, device=device), weight.nbytes)
    saved = rotating(lambda: fill((m, k), dtype=dtype, device=device), x.nbytes)
    return {
        "forward": keeping(lambda: F.linear(x, weights()), gradient.nbytes),
        "grad_input": lambda: gradient @ weights(),
        "grad_weight": keeping(lambda: gradient.t() @ saved(), weight.nbytes),
    }


def attention_curves(watch: Stopwatch, precision: str, dispatch_s: float) -> Iterator[tuple[str, GridCurve]]:
    """Measure causal attention forward and backward over (sequence length, head dimension)."""
    axes = ATTENTION_AXES[watch.device.type]
    rates: dict[str, list[float]] = {"forward": [], "backward": []}
    for length, head_dim in _grid(axes):
        batch = max(1, int(ATTENTION_TOKENS[watch.device.type] // length))
        forward_s, backward_s = _attention_s(watch, precision, batch, int(length), int(head_dim))
        flops = float(attention_flops(batch, length, HEADS * int(head_dim), causal=True))
        rates["forward"].append(flops / net_s(forward_s, dispatch_s))
        rates["backward"].append(2.5 * flops / net_s(backward_s, dispatch_s))
    for phase, values in rates.items():
        yield f"{precision}.{phase}", GridCurve(axes=axes, rate=tuple(values))


def _attention_s(watch: Stopwatch, precision: str, batch: int, length: int, head_dim: int) -> tuple[float, float]:
    width = HEADS * head_dim
    dtype = DTYPES[precision]
    size = batch * length * width * dtype.itemsize

    def attend(inputs: Sequence[Tensor]) -> Tensor:
        query, key, value = inputs
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def make() -> tuple[Tensor, tuple[Tensor, ...]]:
        fused = torch.randn(batch, length, 3 * width, device=watch.device).to(dtype)
        inputs = tuple(
            part.view(batch, length, HEADS, head_dim).transpose(1, 2).detach().requires_grad_()
            for part in fused.split(width, dim=-1)
        )
        return attend(inputs), inputs

    saved = rotating(make, 4 * size, most=ATTENTION_SLOTS)
    output, inputs = saved()
    gradient = torch.randn_like(output)

    def backward() -> tuple[Tensor, ...]:
        output, inputs = saved()
        return torch.autograd.grad(output, inputs, gradient, retain_graph=True)

    forward = keeping(lambda: attend(inputs), size)
    return watch.time_s(f"attention {precision}", forward), watch.time_s(f"attention {precision}", backward)


def _grid(axes: tuple[tuple[float, ...], ...]) -> Iterator[tuple[float, ...]]:
    if not axes:
        yield ()
        return
    for value in axes[0]:
        for rest in _grid(axes[1:]):
            yield (value, *rest)


def net_s(elapsed_s: float, dispatch_s: float) -> float:
    """Return the time without the launch, which the planner adds by itself; at least a quarter of what was seen."""
    return max(elapsed_s - dispatch_s, 0.25 * elapsed_s)
