"""What each constant was taken to be before any training run was looked at: the values that a fit is pulled towards.

Matrix products: nine tenths of the best rates of bare products (table of maximum achievable matmul FLOPS in
stas00/ml-engineering, folder compute/accelerator), which are those of the best of many shapes; Volta, which that table
lacks: of 101 TFLOP/s at 8192 cubed on a V100-PCIe of 112 (forums.developer.nvidia.com, topic 79781). Memory: likewise
nine tenths of stream benchmarks. Links: bus bandwidths of nccl-tests over the line rate. The rest are orders of
magnitude of the mechanism: a framework call takes about 10 microseconds of the host, and the operators counted here are
two calls each in plain eager code, four or five in Megatron's layers (views, transposes, autograd functions, random
states); equal GPUs differ by 8% between the whiskers of a box plot (arXiv 2208.11035), 5.4 standard deviations of a
normal distribution; traffic that software is built to hide is mostly hidden; an elementwise kernel reads and writes its
tensors once, and half as much again is moved beside what is counted.
"""

from __future__ import annotations

OTHERS = "others"

PRIORS: dict[str, dict[str, float]] = {
    "matmul.bf16": {
        "nvidia-volta": 0.81,
        "nvidia-ampere": 0.78,
        "nvidia-hopper": 0.72,
        "nvidia-blackwell": 0.70,
        "nvidia-blackwell-ultra": 0.70,
        "google-tpu": 0.85,
        "amd-cdna2": 0.54,
        "amd-cdna3": 0.46,
        OTHERS: 0.72,
    },
    "matmul.fp8": {"google-tpu": 0.75, "amd-cdna3": 0.4, OTHERS: 0.63},
    "matmul.fp4": {"amd-cdna3": 0.36, OTHERS: 0.54},
    "attention.bf16": {"nvidia-ampere": 0.6, "nvidia-volta": 0.4, "amd-cdna2": 0.35, "amd-cdna3": 0.35, OTHERS: 0.5},
    "memory": {"nvidia-ampere": 0.80, "google-tpu": 0.81, "amd-cdna2": 0.71, "amd-cdna3": 0.71, OTHERS: 0.77},
    "link": {"amd-cdna3": 0.68, OTHERS: 0.8},
    "network": {OTHERS: 0.8},
    "half_depth": {OTHERS: 128.0},
    "misaligned": {OTHERS: 0.2},
    "variation": {OTHERS: 0.015},
    "kernel_s": {"amd-cdna2": 3e-6, "amd-cdna3": 3e-6, OTHERS: 2e-6},
    "dispatch_s": {"megatron": 5e-5, "megatron-core": 4e-5, OTHERS: 2e-5},
    "collective_dispatch_s": {"megatron-core": 2e-5, OTHERS: 3e-5},
    "step_overhead_s": {"xla": 1e-3, OTHERS: 5e-3},
    "run_ahead": {OTHERS: 0.7},
    "overlap_tensor": {OTHERS: 0.7},
    "overlap_data": {OTHERS: 0.9},
    "overlap_shard": {OTHERS: 0.9},
    "shard_rate": {OTHERS: 0.8},
    "overlap_context": {OTHERS: 0.9},
    "overlap_expert": {OTHERS: 0.3},
    "elementwise_passes": {OTHERS: 1.5},
    "memory_overhead": {OTHERS: 0.05},
    "framework_bytes": {"xla": 1e9, OTHERS: 2e9},
}


def prior_of(constant: str, owner: str) -> float:
    """Return the prior value of a constant of a generation or family."""
    values = PRIORS[constant]
    return values.get(owner, values[OTHERS])
