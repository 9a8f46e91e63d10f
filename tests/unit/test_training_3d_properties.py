"""Whatever the degrees: `3dtrn` refuses with a message, or gives finite times that add up."""

import math
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.errors import GnomonError
from training_3d_fixtures import component, report

CHANGES = st.fixed_dictionaries(
    {
        "parallelism.tp": st.sampled_from([1, 2, 3, 8, 16]),
        "parallelism.pp": st.sampled_from([1, 2, 3, 6]),
        "parallelism.dp": st.sampled_from([1, 2, 6, 16]),
        "parallelism.cp": st.sampled_from([1, 2, 4]),
        "parallelism.vpp": st.sampled_from([1, 2]),
        "parallelism.zero_level": st.integers(0, 3),
        "parallelism.sp": st.booleans(),
        "parallelism.n_param_buckets": st.integers(1, 60),
        "performance.activation_checkpointing_type": st.sampled_from(["none", "selective", "super-selective", "full"]),
        "data.microbatch_sz": st.sampled_from([1, 2, 3]),
        "model.dropout": st.booleans(),
    }
)
DATACENTRES = st.none() | st.fixed_dictionaries(
    {
        "cross_dc.n_dcs": st.sampled_from([1, 2, 3]),
        "cross_dc.interconnect_bandwidth_gbps": st.sampled_from([10, 1e5]),
        "cross_dc.interconnect_latency_s": st.sampled_from([0, 0.01]),
    }
)
EXPERTS = st.fixed_dictionaries(
    {"parallelism.ep": st.sampled_from([1, 2, 8]), "model.moe.expert_tp_degree": st.sampled_from([1, 2])}
)


@settings(max_examples=80, deadline=None)
@given(CHANGES, DATACENTRES, st.none() | EXPERTS, st.integers(1, 20))
def test_a_message_or_a_report(changes, datacentres, experts, micro_batches):
    batch = changes["parallelism.dp"] * changes["data.microbatch_sz"] * micro_batches
    every = {**changes, **(datacentres or {}), **(experts or {}), "data.gbs": batch}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = report("llama3_70b" if experts is None else "gpt_oss_120b", every)
    except GnomonError:
        return
    assert math.isfinite(found.final.iteration_time_s)
    assert 0.0 < found.final.mfu < 1.0
    layers = component(found, "Transformer Block") / found.iteration.block_s / found.data.num_micro_batches
    assert math.isclose(layers, round(layers), rel_tol=1e-6)
    for collective in found.data_parallel.collectives:
        assert collective.total_s * (1 + 1e-9) >= collective.exposed_s >= 0.0
        assert collective.total_s * (1 + 1e-9) >= collective.one_site_s
