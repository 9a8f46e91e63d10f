"""What notes on the network mean, in Gb/s per node of eight accelerators, and what links and domains they state."""

import pytest

from gnomon.errors import PlanError
from gnomon.plan.published.interconnect import read_interconnect

UNCLEAR = "interconnect_note states a rate that is not clear (write Gb/s or GB/s, and a decimal point): not read"
ADAPTER = "interconnect_note states the rate of an adapter and not how many a node has: not read"


@pytest.mark.parametrize(
    ("note", "gbit_per_s"),
    [
        ("50 GB/s per GPU", 3200),
        ("12.5 GB/s per GPU", 800),
        ("8 x 400 Gb/s", 3200),
        ("8x50 GB/s", 3200),
        ("400 Gb/s per GPU", 3200),
        ("400Gb/s/GPU", 3200),
        ("per-GPU 400 Gb/s", 3200),
        ("one 400 Gb/s NIC per GPU", 3200),
        ("8x400 Gb/s, one NIC per GPU", 3200),
        ("8 NICs of 400 Gb/s", 3200),
        ("8 NICs, 400 Gb/s each", 3200),
        ("8x NDR 400Gb/s", 3200),
        ("200Gb/s HDR x4", 800),
        ("3200 Gb/s InfiniBand (400 Gb/s per GPU)", 3200),
        ("3,200 Gbps per node", 3200),
        ("25 GByte/s per node", 200),
        ("InfiniBand 1.6Tb/s per node (8x200Gb/s)", 1600),
        ("NVLink 900 GB/s, 8x400G IB", 3200),
        ("900 GB/s NVLink 8x400G IB", 3200),
        ("NVLink (900 GB/s), IB (8x400 Gb/s)", 3200),
        ("NVSwitch 900 GB/s per GPU and 400 Gb/s InfiniBand per GPU", 3200),
        ("8x400G IB, 100G storage", 3200),
        ("ICI 4800 Gb/s, DCN 25 Gb/s per chip", 200),
        ("8 x ConnectX-7 (400 Gb/s)", 3200),
        ("8x NDR (400 Gb/s) InfiniBand", 3200),
        ("4x HDR InfiniBand (200 Gb/s)", 800),
        ("8x HDR IB (200 Gb/s each)", 1600),
        ("2x HDR (400 Gb/s total)", 400),
        ("8x HDR (1600 Gb/s per node)", 1600),
        ("8x ConnectX-7 (3.2 Tb/s)", 3200),
        ("8x ConnectX-7 400Gb/s (3.2Tb/s total)", 3200),
        ("eight 400 Gb/s NICs", 3200),
        ("eight NICs, 400 Gb/s each", 3200),
        ("4x HDR100", 400),
        ("HDR200 x 4", 800),
        ("50 gigabytes/s per GPU", 3200),
        ("NVLink 900 gigabytes/s, eight NICs of 400 gigabit/s", 3200),
        # of the table of open results
        ("800 Gb/s per node (4 HDR InfiniBand), NVLink in node", 800),
        ("1600 Gbps node-node interconnect (RoCE)", 1600),
    ],
)
def test_rates_of_a_node(note: str, gbit_per_s: float) -> None:
    found = read_interconnect(note, 8)
    assert found.node_bytes_per_s == pytest.approx(gbit_per_s * 1e9 / 8)
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("note", "gbit_per_s"),
    [
        ("3,200 Gbps", 3200),
        ("3.2 Tbps EFA", 3200),
        ("100 Gb Ethernet", 100),
        ("25GbE", 25),
        ("ConnectX-7 400 Gb/s", 400),
        ("Slingshot 11 200 Gb/s", 200),
        ("10 Gigabit Ethernet", 10),
        ("10-Gigabit Ethernet", 10),
        ("100 gigabit/s Ethernet", 100),
        ("40 gigabits per second", 40),
        ("1.6 terabit/s", 1600),
        ("HDR100", 100),
        ("hdr200Gb/s", 200),
        ("HDR 200G", 200),
        ("400Gbps", 400),
        ("1600 gbps", 1600),
    ],
)
def test_a_rate_of_nothing_named_is_a_nodes_and_a_remark_says_so(note: str, gbit_per_s: float) -> None:
    found = read_interconnect(note, 8)
    assert found.node_bytes_per_s == pytest.approx(gbit_per_s * 1e9 / 8)
    assert found.remarks == (f"interconnect_note does not say of what {gbit_per_s} Gb/s is the rate: taken per node",)


@pytest.mark.parametrize(
    ("note", "remarks"),
    [
        ("", ()),
        ("NVLink in node, IB across", ()),
        ("PCIe 4.0 64 GB/s", ()),
        ("A100 80GB", ()),
        ("A100 40G", ()),
        ("Jean Zay, Omni-Path 100 (4 per node per project docs)", ()),
        ("4 HCAs ConnectX-6 per node", ()),
        ("16 x v5e-256 pod; DCN data parallel between slices", ()),
        ("1 slice(s) of v5p-128 (64 chips)", ()),
        ("200GB InfiniBand", (UNCLEAR,)),
        ("1600 GBPS", (UNCLEAR,)),
        ("12,5 GB/s", (UNCLEAR,)),
        ("0 Gb/s", (UNCLEAR,)),
        ("9" * 400 + " Gb/s", (UNCLEAR,)),
        ("NDR 400 Gb/s per NIC", (ADAPTER,)),
    ],
)
def test_notes_without_a_rate_that_can_be_read(note: str, remarks: tuple) -> None:
    found = read_interconnect(note, 8)
    assert found.node_bytes_per_s is None
    assert found.remarks == remarks


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ("100 Gb/s, 400 Gb/s", "disagree: 100 and 400 Gb/s per node"),
        ("1" + "0" * 299 + " x 400 Gb/s", "too large to compute with"),
    ],
)
def test_rates_that_cannot_be_are_refused(note: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        read_interconnect(note, 8)


@pytest.mark.parametrize(
    ("note", "link", "domain"),
    [
        ("NVLink 900 GB/s, 8x400G IB", 450e9, None),  # vendors add both directions
        ("NVLink 450 GB/s per direction", 450e9, None),
        ("Infinity Fabric 896 GB/s; 8x400GbE", 448e9, None),
        ("NVL72 domain", None, 72),
        ("NVLink domain of 16", None, 16),
        ("one NVLink domain, 8x400G IB", None, None),
        ("H100 NVL 94 GB", None, None),
    ],
)
def test_links_and_domains(note: str, link: float | None, domain: int | None) -> None:
    found = read_interconnect(note, 8)
    assert (found.link_bytes_per_s, found.domain) == (link, domain)
