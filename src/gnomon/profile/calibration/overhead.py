"""What a training step costs besides its arithmetic: host time per operator, and memory before any tensor."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gnomon.plan.operators import training_operators
from gnomon.plan.sizes import num_parameter_tensors
from gnomon.profile.calibration.problem import probe_cases
from gnomon.spec import ModelSpec
from gnomon.train.gpt import GPT

TINY = ModelSpec(name="overhead probe", num_layers=8, hidden_size=32, num_heads=2, vocab_size=256, max_seq_len=8)
BATCH = 1
REPEATS = 40


@dataclass(frozen=True)
class Overhead:
    """Seconds of host time per launch (forward, backward), per parameter tensor (optimizer), and of one bare call."""

    forward_s: float
    backward_s: float
    optimizer_s: float
    call_s: float


def measure_overhead(device: torch.device) -> Overhead:
    """Train a model so small that all its time is overhead, and divide by the launches that the planner counts."""
    model = GPT(TINY).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    tokens = torch.randint(0, TINY.vocab_size, (BATCH, TINY.max_seq_len), device=device)
    samples = np.array([_step(model, optimizer, tokens) for _ in range(REPEATS)][REPEATS // 4 :])
    forward_s, backward_s, optimizer_s = np.median(samples, axis=0)
    launches = _launches()
    return Overhead(
        forward_s=float(forward_s) / launches["forward"],
        backward_s=float(backward_s) / launches["backward"],
        optimizer_s=float(optimizer_s) / num_parameter_tensors(TINY),
        call_s=_bare_call_s(device),
    )


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> tuple[float, float, float]:
    """Return host seconds of forward, backward and update; the device is idle at the start of each."""
    synchronise(tokens.device)
    began = time.perf_counter()
    loss = F.cross_entropy(model(tokens).float().view(-1, TINY.vocab_size), tokens.view(-1))
    forward = time.perf_counter()
    synchronise(tokens.device)
    resumed = time.perf_counter()
    loss.backward()
    backward = time.perf_counter()
    synchronise(tokens.device)
    last = time.perf_counter()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return forward - began, backward - resumed, time.perf_counter() - last


def _launches() -> dict[str, float]:
    cases = probe_cases(TINY, device_type="cpu", seq_len=TINY.max_seq_len, micro_batch=BATCH)
    counts = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    for operator in training_operators(cases):
        times = {"layer": TINY.num_layers, "accumulation": 0}.get(operator.place, 1)
        counts[operator.phase] += times * float(operator.calls[0]) * float(np.ravel(operator.launches)[0])
    return counts


def _bare_call_s(device: torch.device) -> float:
    """Return the host time inside the micro-benchmarks' calls: none where calls are queued."""
    if device.type == "cuda":
        return 0.0
    x = torch.ones(8, device=device)
    samples = []
    for _ in range(REPEATS * 10):
        began = time.perf_counter()
        x.add_(1.0)
        samples.append(time.perf_counter() - began)
    synchronise(device)
    return float(np.median(samples))


def synchronise(device: torch.device) -> None:
    """Wait for the device's queue; on a CPU there is none."""
    if device.type == "cuda":
        torch.cuda.synchronize()
