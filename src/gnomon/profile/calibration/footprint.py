"""Memory and data cost of the trainer itself, from two short trainings, one tiny and one that fills memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from gnomon.plan.layer_work import TOKEN_BYTES
from gnomon.plan.memory import training_memory
from gnomon.profile.calibration.problem import probe_cases
from gnomon.profile.tensor_memory import peak_resident_bytes
from gnomon.runtime.environment import RankEnvironment
from gnomon.spec import Layout, ModelSpec, SizeCurve, Workload
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer

STEPS = 4
BATCHES = 20


@dataclass(frozen=True)
class Probe:
    """Bytes at the peak of the process and, as the planner counts them, of the tensors; seconds to make a batch."""

    peak_bytes: float
    tensor_bytes: float
    batch_bytes: float
    batch_s: float


@dataclass(frozen=True)
class Footprint:
    """What the planner adds to the tensors: `framework_bytes`, and `allocator_overhead` as a fraction of them."""

    framework_bytes: float
    allocator_overhead: float
    data: SizeCurve


def measure_footprint(device: str) -> Footprint:
    """Train two probes in this process, the smaller one first because a peak never falls."""
    small = _probe(device, num_layers=2, hidden_size=64, seq_len=32, batch=2)
    large = _probe(device, num_layers=3, hidden_size=320, seq_len=192, batch=8)
    growth = (large.peak_bytes - small.peak_bytes) / (large.tensor_bytes - small.tensor_bytes)
    overhead = max(0.0, growth - 1.0)
    return Footprint(
        framework_bytes=max(0.0, small.peak_bytes - (1.0 + overhead) * small.tensor_bytes),
        allocator_overhead=overhead,
        data=SizeCurve(
            size=(small.batch_bytes, large.batch_bytes),
            rate=(small.batch_bytes / small.batch_s, large.batch_bytes / large.batch_s),
        ),
    )


def _probe(device: str, *, num_layers: int, hidden_size: int, seq_len: int, batch: int) -> Probe:
    ranks = RankEnvironment.detect().world_size
    model = ModelSpec(
        name="memory probe",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=hidden_size // 32,
        vocab_size=256,
        max_seq_len=seq_len,
    )
    config = GPTTrainingConfig.from_mapping(
        {
            "run_dir": "unused",
            "num_steps": STEPS,
            "device": device,
            "model": model.to_mapping(),
            "layout": Layout(dp=ranks).to_mapping(),
            "workload": Workload(seq_len=seq_len, global_batch=batch * ranks, micro_batch=batch).to_mapping(),
            "progress": False,
        }
    )
    trainer = GPTTrainer(config)
    trainer.setup()
    try:
        for _ in range(STEPS):
            trainer.run_step()
        peak = _peak_bytes(trainer.device)
        batch_s = _batch_s(trainer)
    finally:
        trainer.teardown()
    cases = probe_cases(model, device_type=trainer.device.type, seq_len=seq_len, micro_batch=batch, ranks=ranks)
    tensors = float(training_memory(cases).tensors[0])
    return Probe(peak, tensors, float(batch * seq_len * TOKEN_BYTES), batch_s)


def _peak_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    return float(peak_resident_bytes())


def _batch_s(trainer: GPTTrainer) -> float:
    samples = []
    batches = iter(trainer.loader)
    for _ in range(BATCHES):
        began = time.perf_counter()
        next(batches)
        samples.append(time.perf_counter() - began)
    return float(np.median(samples))
