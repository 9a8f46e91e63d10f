"""A machine that was never measured: the constant rates of `plan_fixtures` for one and two ranks."""

from gnomon.spec import CollectiveCurve, HardwareProfile, SizeCurve
from plan_fixtures import constant_cluster


def constant_profile() -> HardwareProfile:
    """Return a hardware profile with which one and two ranks can be planned."""
    curve = CollectiveCurve(ranks=2, latency_s=1e-5, bandwidth=SizeCurve.constant(1e9))
    cluster = constant_cluster(collectives={"all_reduce": curve})
    return HardwareProfile(
        created="2026-01-02T03:04:05+00:00",
        accelerator=cluster.accelerator,
        accelerators_per_node=2,
        tier=cluster.tiers[0],
        shares={1: cluster.efficiency, 2: cluster.efficiency},
    )
