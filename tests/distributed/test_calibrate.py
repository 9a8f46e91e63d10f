"""A real calibration with two gloo ranks, as short as it may be."""

import pytest

from gnomon.plan.planner import plan
from gnomon.plan.traffic import memory_key, memory_keys
from gnomon.profile.calibrate import calibrate
from gnomon.spec import HardwareProfile, Layout, Workload
from plan_fixtures import TINY


@pytest.mark.torch_dist
def test_two_ranks_are_measured_and_can_be_planned_for(tmp_path):
    profile = calibrate(ranks=(2,), device="cpu", budget_s=20.0)
    share = profile.shares[2]
    phases = ("forward", "grad_input", "grad_weight")
    assert set(share.matmul) == {f"{dtype}.{phase}" for dtype in ("fp32", "bf16") for phase in phases}
    assert set(share.collectives) == {"all_reduce", "all_gather", "reduce_scatter"}
    assert set(share.memory) == {memory_key(*pair) for pair in memory_keys(("fp32", "bf16"))} | {"data"}
    assert 0.0 <= share.communication_overlap <= 1.0
    assert 1e8 < share.framework_bytes < 2e9
    assert not share.asynchronous
    assert {"torch", "numpy", "gnomon", "cores"} <= set(profile.versions)
    assert profile.spread
    assert HardwareProfile.load(profile.save(tmp_path / "hardware.yaml")) == profile

    estimate = plan(TINY, profile.cluster(2), Layout(dp=2), Workload(seq_len=64, global_batch=8, micro_batch=4))
    assert 0.0 < estimate.time.communication_s < estimate.step_time_s < 60.0
    assert estimate.mfu is not None
    assert 0.0 < estimate.mfu < 1.0
