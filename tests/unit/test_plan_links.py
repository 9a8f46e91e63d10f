"""Groups that use a part of an accelerator's links: direct links to each other one, and the axes of a torus."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import SpecError
from gnomon.plan.arrays import array
from gnomon.plan.network import Network, all_gather_s, all_to_all_s, group, links_share, send_s
from gnomon.plan.planner import plan
from gnomon.spec import ClusterSpec, Layout, NetworkTier, Workload
from gnomon.spec.catalog import load_accelerator, load_cluster, load_model

RATE = 100e9


def network(num_accelerators: int, **links: int) -> Network:
    tier = NetworkTier(name="links", span=num_accelerators, bandwidth_bytes_per_s=RATE, **links)
    return Network.of(
        ClusterSpec(
            name="made", accelerator=load_accelerator("h100-sxm"), accelerators_per_node=num_accelerators, tiers=(tier,)
        )
    )


def test_a_tier_runs_at_what_was_measured_on_it_else_at_its_generations_share() -> None:
    cluster = load_cluster("jean-zay-a100", num_nodes=4)
    rates = cluster.rates
    assert rates is not None
    found = Network.of(cluster).bandwidth
    assert found[0][0] == pytest.approx(300e9 * rates.link, rel=1e-12)
    assert found[1][0] == pytest.approx(40.5e9 / 8 / 2, rel=1e-12)  # 40.5 Gb/s of an adapter, which two GPUs share
    selene = Network.of(load_cluster("selene", num_nodes=4)).bandwidth
    assert selene[1][0] == pytest.approx(25e9 * rates.network, rel=1e-12)


@pytest.mark.parametrize(("ranks", "links"), [(2, 1), (4, 3), (8, 7)])
def test_direct_links_carry_what_goes_to_their_ends_alone(ranks: int, links: int) -> None:
    """MI300X: one of seven links to each other GPU of a node."""
    mesh, size = network(8, neighbours=7), array(7e9)
    path = group(mesh, array(ranks), array(1))
    assert path.bandwidth[0] == pytest.approx(RATE * links / 7)
    assert all_gather_s(size, path)[0] == pytest.approx((ranks - 1) / ranks * 7e9 / (RATE * links / 7))
    # each part goes over the link to its receiver, all at once
    assert all_to_all_s(size, mesh, array(ranks), array(1))[0] == pytest.approx(7e9 / ranks / (RATE / 7))
    assert send_s(size, mesh, array(1), array(ranks))[0] == pytest.approx(7e9 / (RATE / 7))


@pytest.mark.parametrize(
    ("chips", "axes", "ranks", "stride", "met"),
    [
        (256, 2, 256, 1, 2),
        (256, 2, 16, 1, 1),
        (256, 2, 16, 16, 1),
        (256, 2, 4, 1, 1),
        (256, 2, 64, 4, 2),  # what is left of one axis, and the other
        (64, 3, 64, 1, 3),
        (64, 3, 4, 1, 1),
        (64, 3, 16, 4, 2),
        (4096, 3, 16, 1, 1),
        (4096, 3, 256, 16, 2),
        (128, 2, 16, 1, 1),  # 8 x 16: the longer axis
        (128, 2, 8, 16, 1),
        (32, 2, 8, 1, 1),  # 4 x 8
        (256, 3, 8, 1, 1),  # 4 x 8 x 8
        (256, 3, 32, 8, 2),
    ],
)
def test_a_group_has_the_links_of_the_axes_along_which_it_lies(
    chips: int, axes: int, ranks: int, stride: int, met: int
) -> None:
    torus = network(chips, torus_axes=axes)
    assert links_share(torus, 0, array(ranks), array(stride))[0] == pytest.approx(met / axes)
    assert group(torus, array(ranks), array(stride)).bandwidth[0] == pytest.approx(RATE * met / axes)
    assert send_s(array(1e9), torus, array(stride), array(ranks))[0] == pytest.approx(1e9 / (RATE / 2 / axes))


def test_an_exchange_round_an_axis_takes_a_quarter_of_a_gathering() -> None:
    """All-gather of V bytes: V / W; all-to-all V / 4 W, for the rate W of an axis (jax-ml.github.io/scaling-book)."""
    torus, whole, chips = network(256, torus_axes=2), 1e9, 16
    gather = all_gather_s(array(whole), group(torus, array(chips), array(1)))[0] / (1 - 1 / chips)
    exchange = all_to_all_s(array(whole / chips), torus, array(chips), array(1))[0] / (1 - 1 / chips)
    assert exchange == pytest.approx(gather / 4)


def test_a_switch_gives_any_two_all_their_links() -> None:
    switch = network(8)
    for ranks in (2, 4, 8):
        assert np.all(group(switch, array(ranks), array(1)).bandwidth == RATE)


def test_tensor_parallelism_over_one_link_shows_in_the_step() -> None:
    asked = Workload(seq_len=4096, global_batch=64, micro_batch=1, precision="bf16", stack="fsdp")
    cluster, model, layout = (
        load_cluster("mi300x-8x400g", 1),
        load_model("llama-3-8b"),
        Layout(dp=4, tp=2, zero_stage=3),
    )
    inner = cluster.tiers[0].model_copy(update={"neighbours": None})
    switched = cluster.model_copy(update={"tiers": (inner, *cluster.tiers[1:])})
    direct, through = (plan(model, c, layout, asked).time.communication_s for c in (cluster, switched))
    assert direct > 2.0 * through


def test_a_tier_is_a_mesh_or_a_torus() -> None:
    with pytest.raises(SpecError, match="not both"):
        NetworkTier.from_mapping(
            {"name": "x", "span": 8, "bandwidth_bytes_per_s": 1.0, "neighbours": 7, "torus_axes": 2}
        )
