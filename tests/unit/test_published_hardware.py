"""Names of accelerators, and the machines that rows mean."""

import pytest

from gnomon.errors import PlanError
from gnomon.plan.published.accelerators import accelerator_of
from gnomon.plan.published.hardware import cluster_of
from gnomon.spec.catalog import load_cluster


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        ("A100-SXM4-40GB", "a100-40gb"),
        ("A100-40GB SXM", "a100-40gb"),
        ("A100 (40GB)", "a100-40gb"),
        ("A100 80 GB SXM4", "a100-80gb"),
        ("NVIDIA A100 80GB", "a100-80gb"),
        ("8xA100-80GB", "a100-80gb"),
        ("A100-80GB-PCIe", "a100-pcie-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("A100-64GB", "a100-64gb-custom"),
        ("A800", "a800-80gb"),
        ("Tesla V100 32GB", "v100-32gb"),
        ("V100-SXM2-16GB", "v100-16gb"),
        ("Tesla V100-SXM3-32GB", "v100-sxm3-32gb"),
        ("H100", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("H100-PCIe", "h100-pcie"),
        ("H100 94GB", "h100-nvl"),
        ("H100-96GB-HBM2e-500W", "h100-96gb-hbm2e"),
        ("H200-SXM-141GB", "h200"),
        ("B200-192GB", "b200"),
        ("GB200-NVL72", "gb200"),
        ("GB300 NVL72", "gb300"),
        ("NVIDIA GH200 480GB", "gh200-96gb"),
        ("GH200 144GB", "gh200-144gb"),
        ("MI250X (GCD)", "mi250x-gcd"),
        ("MI250X", "mi250x"),
        ("MI300X (source: MI300)", "mi300x"),
        ("TPUv4", "tpu-v4"),
        ("v5p", "tpu-v5p"),
        ("TPU v5p-128", "tpu-v5p"),
        ("TPU v5 lite", "tpu-v5e"),
        ("v6e-256", "tpu-v6e"),
        ("Ironwood-256", "tpu-v7x"),
        ("v5litepod-256", "tpu-v5e"),
        ("tpu7x-4x4x4", "tpu-v7x"),
        ("Trillium", "tpu-v6e"),
        ("TPU7x", "tpu-v7x"),
        ("TPU7x (Ironwood)", "tpu-v7x"),
        ("TPU-v7x-Ironwood", "tpu-v7x"),
        ("Ironwood", "tpu-v7x"),
        ("Gaudi 2", "gaudi2"),
        ("trn2", "trainium2"),
        ("RTX4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("A6000", "rtx-a6000"),
        ("RTX 6000 Ada", "rtx-6000-ada"),
        ("L40S PCIe", "l40s"),
    ],
)
def test_names_of_accelerators(hardware: str, name: str) -> None:
    remarks: list[str] = []
    assert accelerator_of({"hardware": hardware}, remarks) == name
    assert remarks == []


@pytest.mark.parametrize(
    ("hardware", "name"),
    [("A100 (paper: NVIDIA Ampere)", "a100-80gb"), ("V100", "v100-32gb"), ("GH200", "gh200-96gb")],
)
def test_a_memory_that_is_not_stated_is_taken_with_a_remark(hardware: str, name: str) -> None:
    remarks: list[str] = []
    assert accelerator_of({"hardware": hardware}, remarks) == name
    assert remarks == [f"hardware does not state the memory: {hardware} taken as {name}"]


@pytest.mark.parametrize("hardware", ["A800-40GB", "V100-PCIe-32GB", "H100-64GB", "A100-80GB (GCD)", "MI300", "Z9000"])
def test_devices_that_the_catalog_lacks_are_not_replaced(hardware: str) -> None:
    with pytest.raises(PlanError, match="which the catalog does not know"):
        accelerator_of({"hardware": hardware}, [])


def machine(hardware: str, ranks: int, per_node: int | str, note: str = ""):
    remarks: list[str] = []
    row = {"hardware": hardware, "n_accel": str(ranks), "accel_per_node": str(per_node), "interconnect_note": note}
    return cluster_of(row, remarks), remarks


@pytest.mark.parametrize(
    ("hardware", "per_node", "note", "span"),
    [
        ("A100-80GB", "", "", 8),
        ("A100-80GB", 4, "", 4),
        ("A100-80GB", 2, "", 2),
        ("A100-80GB", 8, "NVLink domain of 16", 16),
        ("V100-32GB", 8, "", 8),
        ("GB200", 4, "", 72),
        ("GB200", 4, "NVL36", 36),
        ("GB200-NVL72", 4, "", 72),
        ("TPU-v5p", 4, "", 1_000_000),  # one slice, all of it a torus
    ],
)
def test_a_node_limits_the_innermost_tier_where_the_catalog_ends_it_there(
    hardware: str, per_node: int | str, note: str, span: int
) -> None:
    cluster, remarks = machine(hardware, 64, per_node, note)
    assert cluster.tiers[0].span == span
    assert remarks == []


@pytest.mark.parametrize(
    ("hardware", "per_node", "note", "board"),
    [
        ("V100-32GB", 16, "", "v100-sxm3-32gb"),  # no other machine has sixteen
        ("V100-32GB", 16, "DGX-2", "v100-sxm3-32gb"),
        ("V100-SXM2-32GB", 16, "", "v100-32gb"),
        ("NVIDIA V100 SXM3 32GB", 8, "", "v100-sxm3-32gb"),
        ("V100-32GB (DGX-2)", 8, "", "v100-sxm3-32gb"),
        ("V100-32GB", 8, "DGX-1", "v100-32gb"),
        ("V100-32GB", 8, "", "v100-32gb"),
        ("V100-16GB", 16, "DGX-2", "v100-16gb"),
        ("A100-40GB", 8, "DGX-A100", "a100-40gb"),
    ],
)
def test_a_machine_says_which_board_of_a_name_it_has(hardware: str, per_node: int, note: str, board: str) -> None:
    cluster, remarks = machine(hardware, 1, per_node, note)
    assert cluster.accelerator.name == board
    assert remarks == []


def test_a_module_that_a_dgx_2_has_not_is_placed_in_a_dgx_1() -> None:
    cluster, remarks = machine("V100 SXM2 32GB", 64, "", "")
    assert (cluster.accelerator.name, cluster.accelerators_per_node, cluster.tiers[0].span) == ("v100-32gb", 8, 8)
    assert remarks == []


@pytest.mark.parametrize("note", ["2 slices of v5e-128", "two slices of v5e-128"])
def test_the_number_of_slices(note: str) -> None:
    assert machine("v5e", 256, "", note)[0].tiers[0].span == 128


def test_another_rate_than_the_measured_one_is_not_known_to_be_reached() -> None:
    measured, _ = machine("A100-80GB", 64, 8, "Jean Zay")
    other, _ = machine("A100-80GB", 64, 8, "Jean Zay, 800 Gb/s per node")
    assert measured.tiers[1].achieved == 0.405
    assert other.tiers[1].achieved is None


def test_more_accelerators_in_a_node_than_a_board_has_are_reached_over_the_network() -> None:
    cluster, remarks = machine("A100-80GB", 64, 16, "1600 Gb/s per node")
    assert cluster.tiers[0].span == 8
    assert cluster.tiers[1].bandwidth_bytes_per_s == 1600e9 / 8 / 16
    assert remarks == [
        "accel_per_node=16 is more than NVLink 3 joins in dgx-a100, 8: beyond them the network is priced"
    ]


def test_a_stated_rate_is_shared_by_the_accelerators_of_a_node() -> None:
    cluster, _ = machine("H100", 64, 4, "50 GB/s per GPU")
    assert cluster.tiers[1].bandwidth_bytes_per_s == 50e9
    slices, _ = machine("TPU-v5p", 128, 4, "2 slices, DCN 25 Gb/s per chip")
    assert [(t.span, t.bandwidth_bytes_per_s) for t in slices.tiers] == [(64, 600e9), (1_000_000, 25e9 / 8)]


@pytest.mark.parametrize(
    ("hardware", "ranks", "note", "torus"),
    [
        ("TPU-v4", 6144, "2 pods of 3072, DCN between", 3072),
        ("TPU-v4", 6144, "", 3072),  # a pod has 4096 chips
        ("TPU-v4", 6144, "0 slices", 3072),
        ("TPU-v5e", 1024, "v5e-256 pod", 256),
        ("TPU-v5e", 512, "TPU v5e 256 pod, 2 of them", 256),
        ("TPU-v5p", 512, "dcn_data_parallelism=4", 128),
        ("TPU-v6e", 512, "2 x v6e-256", 256),
        ("TPU-v5p", 512, "4 slices of v5p-256 (128 chips)", 128),
    ],
)
def test_slices_are_joined_by_the_data_centre_network(hardware: str, ranks: int, note: str, torus: int) -> None:
    cluster, _ = machine(hardware, ranks, 4, note)
    assert [tier.span for tier in cluster.tiers] == [torus, 1_000_000]
    catalogued = load_cluster(f"{hardware.lower()}-pod").tiers[1]
    assert cluster.tiers[1].bandwidth_bytes_per_s == catalogued.bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("hardware", "ranks", "note", "tiers", "made_of"),
    [
        ("RTX-4090", 8, "", [(1_000_000, 32e9)], "PCIe of 32 GB/s per direction"),
        (
            "A100-80GB-PCIe",
            64,
            "200 Gb/s per node",
            [(8, 32e9), (1_000_000, 3.125e9)],
            "PCIe of 32 GB/s per direction and a network of 200 Gb/s per node",
        ),
        (
            "H20",
            64,
            "NVLink 900 GB/s, 8x400G IB",
            [(8, 450e9), (1_000_000, 50e9)],
            "link of 450 GB/s per direction and a network of 3200 Gb/s per node",
        ),
        ("MI250X", 64, "8x200 Gb/s", [(1_000_000, 25e9)], "a network of 1600 Gb/s per node within nodes too"),
    ],
)
def test_nodes_made_of_what_is_known(hardware: str, ranks: int, note: str, tiers: list, made_of: str) -> None:
    cluster, remarks = machine(hardware, ranks, 8, note)
    assert [(t.span, t.bandwidth_bytes_per_s) for t in cluster.tiers] == tiers
    assert cluster.accelerators_per_node == 8
    assert remarks == [f"the catalog has no cluster of {cluster.accelerator.name}: nodes of 8 with {made_of}"]


@pytest.mark.parametrize(
    ("hardware", "per_node", "words"),
    [
        ("RTX-4090", "", "for which the catalog has no cluster, and accel_per_node is blank"),
        ("RTX-4090", 8, "for which the catalog has no cluster, and interconnect_note states no rate of the network"),
        ("MI250X", 8, "neither the rate of its links nor that of its network is known"),
        ("TPU-v2", 8, "neither the rate of its links nor that of its network is known"),
    ],
)
def test_machines_of_which_too_little_is_known_are_refused(hardware: str, per_node: int | str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        machine(hardware, 64, per_node)
