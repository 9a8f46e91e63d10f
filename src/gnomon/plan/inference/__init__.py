"""Inference estimates: prefill, decode, key-value cache, and the hardware that meets a latency target."""

from gnomon.plan.inference.cache import kv_bytes_per_token, kv_cache_bytes
from gnomon.plan.inference.estimate import InferenceEstimate, InferenceMemory, InferenceTime, ServingPoint
from gnomon.plan.inference.experts import expected_distinct_experts
from gnomon.plan.inference.hardware import HardwareChoice, HardwareSearch, ServingTarget, find_hardware
from gnomon.plan.inference.planner import plan_inference
from gnomon.plan.inference.workload import InferenceWorkload

__all__ = [
    "HardwareChoice",
    "HardwareSearch",
    "InferenceEstimate",
    "InferenceMemory",
    "InferenceTime",
    "InferenceWorkload",
    "ServingPoint",
    "ServingTarget",
    "expected_distinct_experts",
    "find_hardware",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "plan_inference",
]
