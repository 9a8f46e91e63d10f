"""The machines of `3dtrn`: names of dlcalc and of the catalog, files, cores, nodes that are not full."""

import io

import pytest
from rich.console import Console

from gnomon.errors import CatalogError, LayoutError, SpecError
from gnomon.plan.training_3d.clusters import nodes_of
from gnomon.plan.training_3d.render import render
from training_3d_fixtures import FIXTURES, report

DLCALC = {
    "p4d.24xlarge": (8, 312),
    "p4de.24xlarge": (8, 312),
    "p5.48xlarge": (8, 989.4),
    "p6-b200.48xlarge": (8, 2250),
    "u-p6e-gb300x72": (4, 2500),
    "trn1n.32xlarge": (32, 95),
}


@pytest.mark.parametrize("name", DLCALC)
def test_every_node_type_of_dlcalc_gives_a_report(name):
    found = report("llama3_70b", {"hardware.node_type": name, "parallelism.dp": 36, "data.gbs": 36 * 32}, fixed=False)
    per_node, teraflops = DLCALC[name]
    assert found.hardware.num_nodes == 36 * 16 // per_node
    assert found.hardware.peak_flops_per_s == pytest.approx(teraflops * 1e12)
    assert 0.0 < found.final.mfu < 0.9


def test_a_core_is_half_a_chip_and_its_peaks_are_taken_as_they_are():
    cluster, assumptions = nodes_of("trn1n.32xlarge", 64, 64)
    device = cluster.accelerator
    assert (device.peak_flops["bf16"], device.memory_bytes) == (95e12, 16 * 2**30)
    assert device.memory_bandwidth_bytes_per_s == 410e9
    assert [(tier.span, tier.bandwidth_bytes_per_s) for tier in cluster.tiers] == [(32, 192e9), (200000, 6.25e9)]
    assert cluster.num_nodes == 2
    assert cluster.rates is not None
    assert set(cluster.rates.matmul.values()) == {1.0}
    assert "lower bounds" in assumptions[1]


@pytest.mark.parametrize("name", ["dgx-h200", "mi300x-8x400g", "tpu-v5p-pod", "dgx-1-v100", "P5.48XLARGE"])
def test_clusters_of_the_catalog(name):
    found = report("llama3_70b", {"hardware.node_type": name}, fixed=False)
    assert found.hardware.num_accelerators == 1024
    assert found.hardware.precision == ("fp16" if "v100" in name else "bf16")


@pytest.mark.parametrize(
    ("node_type", "label"), [("cluster.yaml", "  Cluster: "), ("u-p6e-gb300x72", "  Catalog Cluster: ")]
)
def test_a_file_s_cluster_is_not_the_catalog_s(node_type, label, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    text = io.StringIO()
    changes = {"hardware.node_type": node_type, "parallelism.dp": 36, "data.gbs": 36 * 32}
    render(report("llama3_70b", changes, fixed=False), Console(file=text, width=80))
    lines = [line for line in text.getvalue().splitlines() if "Cluster:" in line]
    assert [line.startswith(label) for line in lines] == [True]


def test_ranks_fill_nodes_or_less_than_one():
    assert nodes_of("p5.48xlarge", 4, 4).cluster.num_nodes == 1
    assert nodes_of("p5.48xlarge", 24, 24).cluster.num_nodes == 3
    with pytest.raises(LayoutError, match=r"whole nodes of 8 .* is 8 or 16, or at most 8"):
        nodes_of("p5.48xlarge", 12, 12)


def test_a_network_reaches_as_far_as_the_ranks_and_says_so():
    cluster, assumptions = nodes_of("p4d.24xlarge", 8192, 8192)
    assert cluster.tiers[-1].span == 8192
    assert "EFA connects 8192 accelerators (its stated reach is 4000)" in assumptions[0]
    assert nodes_of("p4d.24xlarge", 8192, 2048).assumptions == ()


def test_unknown_machines():
    with pytest.raises(CatalogError, match=r"Did you mean 'p5.48xlarge'"):
        nodes_of("p5.48xlarg", 8, 8)
    with pytest.raises(CatalogError, match=r"Did you mean 'u-p6e-gb300x72'"):
        nodes_of("u-p6e-gb300x7", 8, 8)
    with pytest.raises(SpecError, match=r"File not found: 'nowhere.yaml'"):
        nodes_of("nowhere.yaml", 8, 8)


def test_a_file_without_a_network_has_one_rank(tmp_path):
    text = (FIXTURES / "cluster.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("tiers:")
    path = tmp_path / "alone.yaml"
    path.write_text(before + after[after.index("rates:") :], encoding="utf-8")
    assert nodes_of(str(path), 1, 1).cluster.num_nodes == 1
    with pytest.raises(LayoutError, match="has no network tier"):
        nodes_of(str(path), 8, 8)
