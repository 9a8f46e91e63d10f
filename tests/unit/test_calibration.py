"""The micro-benchmarks on sizes so small that they take milliseconds."""

import math

import pytest
import torch

from gnomon.errors import CalibrationError
from gnomon.plan.traffic import TRAFFIC, memory_keys
from gnomon.profile import calibrate as calibrate_module
from gnomon.profile.calibration import compute, memory
from gnomon.profile.calibration.compute import attention_curves, matmul_curves, net_s
from gnomon.profile.calibration.overhead import measure_overhead
from gnomon.profile.calibration.ring import MAX_SLOTS, keeping, rotating, slots
from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.spec.hardware_profile import measured_peaks
from pipeline_fixtures import constant_profile
from plan_fixtures import constant_cluster

CPU = torch.device("cpu")


@pytest.fixture
def watch() -> Stopwatch:
    return Stopwatch(CPU, min_duration_s=0.0)


def test_the_stopwatch_gives_the_median_and_remembers_the_spread(watch, monkeypatch):
    samples = iter([9e-3, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3])  # the first warms up
    monkeypatch.setattr(watch, "_call_s", lambda function: next(samples))
    assert watch.time_s("group", lambda: None) == 3e-3
    assert watch.spread() == {"group": pytest.approx((4.6 - 1.4) / 3.0)}


def test_long_calls_are_repeated_less(watch, monkeypatch):
    calls = []
    monkeypatch.setattr(watch, "_call_s", lambda function: calls.append(1) or 1.0)
    watch.time_s("long", lambda: None)
    assert len(calls) == 1 + 3


def test_a_ring_is_larger_than_the_cache_but_bounded():
    assert slots(2**20) == 48
    assert slots(1) == MAX_SLOTS
    assert slots(2**30) == 2
    made = iter(range(100))
    take = rotating(lambda: next(made), 2**30)
    assert [take() for _ in range(5)] == [0, 1, 0, 1, 0]


def test_kept_results_stay_alive():
    import gc
    import weakref

    class Result:
        pass

    call = keeping(Result, 2**30)
    first = weakref.ref(call())
    call()
    assert first() is not None
    call()
    gc.collect()
    assert first() is None


def test_launches_are_taken_off_but_never_all():
    assert net_s(1.0, 0.2) == pytest.approx(0.8)
    assert net_s(1.0, 2.0) == 0.25


def test_matmul_and_attention_curves_cover_their_grid(watch, monkeypatch):
    monkeypatch.setitem(compute.MATMUL_AXES, "cpu", ((8.0, 16.0), (8.0,), (8.0, 16.0)))
    monkeypatch.setitem(compute.ATTENTION_AXES, "cpu", ((16.0, 32.0), (8.0,)))
    monkeypatch.setitem(compute.ATTENTION_TOKENS, "cpu", 64)
    curves = dict(matmul_curves(watch, "bf16", 0.0))
    assert set(curves) == {"bf16.forward", "bf16.grad_input", "bf16.grad_weight"}
    assert all(len(curve.rate) == 4 and min(curve.rate) > 0 for curve in curves.values())
    attention = dict(attention_curves(watch, "fp32", 0.0))
    assert set(attention) == {"fp32.forward", "fp32.backward"}
    assert all(len(curve.rate) == 2 for curve in attention.values())


@pytest.mark.parametrize(("kind", "precision"), memory_keys(("fp32", "bf16")))
def test_every_kind_of_traffic_has_a_benchmark_that_runs(kind, precision, monkeypatch):
    monkeypatch.setattr("gnomon.profile.calibration.ring.MAX_SLOTS", 2)
    monkeypatch.setattr("gnomon.profile.calibration.ring.RING_BYTES", 2)
    function = memory.benchmark(kind, 2 * memory.WIDTH, compute.DTYPES[precision], CPU)
    function()
    result = function()
    tensors = [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)]
    assert all(torch.isfinite(t.float()).all() for t in tensors)


def test_keys_are_measured_once():
    keys = memory_keys(("fp32", "bf16"))
    assert ("layernorm", "fp32") in keys
    assert ("layernorm", "bf16") not in keys  # normalisation stays in fp32
    assert {("gelu", "fp32"), ("gelu", "bf16"), ("cast_down", "bf16")} <= set(keys)
    assert {kind for kind, _ in keys} == set(TRAFFIC)


def test_overhead_is_microseconds():
    overhead = measure_overhead(CPU)
    for seconds in (overhead.forward_s, overhead.backward_s, overhead.optimizer_s, overhead.call_s):
        assert 1e-8 < seconds < 1e-2


def test_measured_peaks_are_the_highest_rates():
    assert measured_peaks(constant_cluster().efficiency) == {"default": 1e12}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ranks": ()}, "at least one number of ranks"),
        ({"ranks": (0,)}, "each 1 or more"),
        ({"budget_s": 1}, "too short"),
    ],
)
def test_bad_requests_say_what_to_do(asked, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate_module.calibrate(**asked)


def test_a_known_device_takes_its_peaks_from_the_catalog():
    efficiency = constant_cluster().efficiency
    result = {"device": "NVIDIA H200", "kind": "gpu", "memory_bytes": 1.4e11}
    accelerator = calibrate_module._accelerator(result, efficiency)
    assert math.isclose(accelerator.peak_flops["bf16"], 989e12, rel_tol=0.01)
    assert accelerator.memory_bytes == 1.4e11


@pytest.mark.parametrize(
    ("device", "found", "ranks"), [("auto", 0, (1, 2)), ("auto", 1, (1,)), ("cpu", 1, (1, 2)), ("cuda", 8, (1, 2))]
)
def test_ranks_follow_the_devices(device, found, ranks, monkeypatch):
    monkeypatch.setattr(calibrate_module, "gpus", lambda: [{"name": "fake"}] * found)
    monkeypatch.setattr(calibrate_module, "cuda_devices", lambda: found)
    assert calibrate_module.default_ranks(device) == ranks


def test_pytorch_is_asked_how_many_gpus_it_can_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert calibrate_module.cuda_devices() == 0


def test_a_busy_machine_is_named():
    profile = constant_profile()
    assert profile.unsteady() == ""
    busy = profile.model_copy(update={"spread": {"matmul fp32, 1 rank(s)": 1.12, "memory, 1 rank(s)": 5.0}})
    assert "matmul fp32, 1 rank(s) spread over 112%" in busy.unsteady()
    assert "while the machine was busy" in busy.cluster(1).source
