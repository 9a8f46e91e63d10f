"""The networks of the clusters add up to what their makers publish for a node, a rack or a chip."""

from __future__ import annotations

import pytest

import gnomon.spec.catalog as catalog

# network of one node in Gb/s and direction, as its maker states it
NODE_GBIT_PER_S = {
    "a100-80gb-4xhdr": 4 * 200,
    "a2-ultragpu-8g": 100,
    "a3-highgpu-8g": 800,
    "a3-megagpu-8g": 1600,
    "a3-ultragpu-8g": 3200,
    "a4-highgpu-8g": 3200,
    "a4x-highgpu-4g": 1600,
    "alps": 4 * 200,
    "dgx-1-v100": 4 * 100,
    "dgx-2": 8 * 100,
    "dgx-a100": 8 * 200,
    "dgx-b200": 8 * 400,
    "dgx-b300": 8 * 800,
    "dgx-h100": 8 * 400,
    "dgx-h200": 8 * 400,
    "el-capitan": 4 * 200,
    "frontier": 4 * 200,
    "g6e.48xlarge": 400,
    "gb300-nvl72": 4 * 800,
    "grand-teton-h100": 8 * 400,
    "hgx-h800": 8 * 400,
    "hls-gaudi2": 8 * 3 * 100,
    "hls-gaudi3": 8 * 3 * 200,
    "jean-zay-a100": 4 * 100,
    "juwels-booster": 4 * 200,
    "leonardo-booster": 400,
    "lumi-g": 4 * 200,
    "mi355x-8x400g": 8 * 400,
    "nd-a100-v4": 8 * 200,
    "nd-h100-v5": 8 * 400,
    "nd-mi300x-v5": 8 * 400,
    "oci-bm.gpu4.8": 1600,
    "oci-bm.gpu.h100.8": 3200,
    "p3dn.24xlarge": 100,
    "p4d.24xlarge": 400,
    "p5.48xlarge": 3200,
    "p5en.48xlarge": 3200,
    "p6-b200.48xlarge": 3200,
    "p6-b300.48xlarge": 6400,
    "p6e-gb200": 28800 / 18,
    "perlmutter": 4 * 200,
    "selene": 8 * 200,
    "trn1.32xlarge": 800,
    "trn1n.32xlarge": 1600,
    "trn2.48xlarge": 3200,
}

# GB/s and direction that the innermost tier gives one accelerator
INNER_GB_PER_S = {
    "dgx-1-v100": 6 * 25,
    "dgx-a100": 12 * 25,
    "hgx-a800": 8 * 25,
    "dgx-h100": 18 * 25,
    "hgx-h800": 8 * 25,
    "gb200-nvl72": 18 * 50,
    "nd-mi300x-v5": 7 * 64,
    "mi355x-8x400g": 7 * 76.8,
    "tpu-v3-pod": 4 * 656 / 8,
    "tpu-v4-pod": 6 * 50,
    "tpu-v5e-pod": 4 * 50,
    "tpu-v5p-pod": 6 * 100,
    "tpu-v6e-pod": 4 * 100,
    "tpu-v7x-pod": 6 * 100,
    "trn2.48xlarge": 4 * 128,
}


@pytest.mark.parametrize(("name", "gbit_per_s"), NODE_GBIT_PER_S.items())
def test_the_shares_of_a_node_add_up_to_its_network(name, gbit_per_s):
    spec = catalog.load_cluster(name)
    assert spec.tiers[-1].bandwidth_bytes_per_s * spec.accelerators_per_node * 8 == pytest.approx(gbit_per_s * 1e9)


@pytest.mark.parametrize(("name", "gb_per_s"), INNER_GB_PER_S.items())
def test_links_times_rate_is_the_innermost_tier(name, gb_per_s):
    assert catalog.load_cluster(name).tiers[0].bandwidth_bytes_per_s == pytest.approx(gb_per_s * 1e9)


@pytest.mark.parametrize("name", catalog.list_clusters())
def test_tiers_widen_and_slow_down_outwards(name):
    spec = catalog.load_cluster(name)
    assert spec.tiers[0].span >= spec.accelerators_per_node
    bandwidths = [tier.bandwidth_bytes_per_s for tier in spec.tiers]
    latencies = [tier.latency_s for tier in spec.tiers]
    assert bandwidths == sorted(bandwidths, reverse=True)
    assert latencies == sorted(latencies)
    assert all("latency:" in tier.source for tier in spec.tiers)


@pytest.mark.parametrize("name", [name for name in catalog.list_clusters() if name.startswith("tpu-v")])
def test_a_pod_of_chips_spans_what_its_maker_says(name):
    chips = {"v3": 1024, "v4": 4096, "v5e": 256, "v5p": 8960, "v6e": 256, "v7x": 9216}
    assert catalog.load_cluster(name).tiers[0].span == chips[name.split("-")[1]]


def test_a_rack_of_72_is_one_nvlink_domain():
    rack = catalog.load_cluster("gb300-nvl72", num_nodes=36)
    assert rack.tier_for(72) is rack.tiers[0]
    assert rack.tier_for(73) is rack.tiers[1]
    assert rack.tiers[1].bandwidth_bytes_per_s == pytest.approx(100e9)
