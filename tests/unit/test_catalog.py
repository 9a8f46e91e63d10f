"""Every catalog entry validates and names its source."""

from __future__ import annotations

from pathlib import Path

import pytest

import gnomon.spec.catalog as catalog
from gnomon.errors import CatalogError, SpecError
from gnomon.spec import AcceleratorSpec, DeviceRates
from gnomon.spec._noun import read_mapping

FOLDER = Path(catalog.__file__).parent
# nobody has published what they achieve; a measured profile brings it
WITHOUT_ACHIEVED_RATES = {"gaudi2", "gaudi3", "trainium1", "trainium2"}
EFFICIENCIES = sorted((FOLDER / "efficiencies").glob("*.yaml"))


@pytest.mark.parametrize("name", catalog.list_models())
def test_model_validates_and_has_a_source(name):
    spec = catalog.load_model(name)
    assert spec.name == name
    assert "https://" in spec.source


@pytest.mark.parametrize("name", catalog.list_accelerators())
def test_accelerator_validates_and_has_a_source(name):
    spec = catalog.load_accelerator(name)
    assert spec.name == name
    assert spec.peak_flops
    assert spec.memory_bandwidth_bytes_per_s is not None
    assert spec.memory_bytes is not None or spec.kind == "cpu"
    assert "https://" in spec.source


@pytest.mark.parametrize("name", catalog.list_clusters())
def test_cluster_validates_and_every_tier_has_a_source(name):
    spec = catalog.load_cluster(name, num_nodes=2)
    assert spec.name == name
    assert spec.num_accelerators == 2 * spec.accelerators_per_node
    assert "https://" in spec.source
    assert spec.tiers
    assert all(tier.source for tier in spec.tiers)
    assert spec.tier_for(spec.num_accelerators) is not None
    assert (spec.rates is None) == (spec.accelerator.name in WITHOUT_ACHIEVED_RATES)
    assert spec.accelerator.name in spec.peak_source


@pytest.mark.parametrize("path", EFFICIENCIES, ids=lambda path: path.stem)
def test_every_generic_efficiency_states_where_it_comes_from(path):
    rates = DeviceRates.load(path)
    assert set(rates.sources) >= set(read_mapping(path)) - {"sources"}


def test_catalog_is_large_enough():
    assert len(catalog.list_models()) >= 60
    assert len(catalog.list_accelerators()) >= 40
    assert len(catalog.list_clusters()) >= 40


def test_a_named_accelerator_brings_the_rates_of_its_generation():
    cluster = catalog.load_cluster("dgx-a100")
    assert cluster.efficiency is None
    assert cluster.rates.name == "nvidia-ampere"
    assert 0.5 < cluster.rates.matmul["bf16"] < 1


@pytest.mark.parametrize("name", catalog.list_accelerators())
def test_rates_know_the_training_types_of_the_accelerator(name):
    rates = catalog.cluster_from_mapping({"name": "mine", "accelerator": name, "accelerators_per_node": 1}).rates
    peaks = catalog.load_accelerator(name).peak_flops
    assert rates is None or {"fp32", "fp16", "bf16"} & set(peaks) <= set(rates.matmul)


def test_h100_figures():
    h100 = catalog.load_accelerator("H100-SXM")
    assert h100.peak_flops["bf16"] == pytest.approx(989.4e12)
    assert h100.memory_bytes == 80 * 2**30
    assert h100.memory_bandwidth_bytes_per_s == pytest.approx(3.35e12)


def test_tiers_of_a_node_and_of_the_network():
    cluster = catalog.load_cluster("p5.48xlarge", num_nodes=4)
    assert cluster.tier_for(8).bandwidth_bytes_per_s == pytest.approx(450e9)
    assert cluster.tier_for(32).bandwidth_bytes_per_s == pytest.approx(3200e9 / 8 / 8)


@pytest.mark.parametrize(
    ("device", "name"),
    [("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100-80gb"), ("NVIDIA GeForce RTX 4090", "rtx-4090")],
)
def test_find_accelerator_by_the_name_its_driver_gives(device, name):
    assert catalog.find_accelerator(device) == catalog.load_accelerator(name)


def test_an_unknown_device_has_no_accelerator():
    assert catalog.find_accelerator("NVIDIA H2000") is None


def test_device_names_are_unique():
    entries = [read_mapping(path) for path in (FOLDER / "accelerators").glob("*.yaml")]
    names = [device for entry in entries for device in entry.get("device_names", ())]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (catalog.load_model, "lama-3-8b", "Did you mean 'llama-3-8b'?"),
        (catalog.load_accelerator, "h100", "Names that contain it: h100-96gb-hbm2e, h100-nvl, h100-pcie, h100-sxm."),
        (catalog.load_cluster, "dgx_h100", "Did you mean 'dgx-h100'?"),
        (catalog.load_cluster, "../models/gpt2", "The catalog has no '../models/gpt2' among its"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(load, name, message):
    with pytest.raises(CatalogError) as caught:
        load(name)
    assert message in str(caught.value)


def test_a_described_cluster_may_name_its_accelerator():
    cluster = catalog.cluster_from_mapping({"name": "mine", "accelerator": "a40", "accelerators_per_node": 2})
    assert cluster.accelerator == catalog.load_accelerator("a40")
    assert cluster.rates is not None


def test_a_described_cluster_keeps_its_own_accelerator_and_rates():
    described = {"name": "mine", "accelerator": {"name": "x"}, "accelerators_per_node": 2}
    assert catalog.cluster_from_mapping(described).rates is None
    own = {"name": "mine", "accelerator": "a40", "accelerators_per_node": 2, "rates": None}
    assert catalog.cluster_from_mapping(own).rates is None


@pytest.mark.parametrize("data", [[1], {"name": "mine", "accelerators": "a40"}])
def test_a_wrongly_described_cluster(data):
    with pytest.raises(SpecError):
        catalog.cluster_from_mapping(data)


def test_no_nodes():
    with pytest.raises(SpecError, match="num_nodes"):
        catalog.load_cluster("dgx-h100", num_nodes=0)


@pytest.mark.parametrize(("text", "size"), [("80 GiB", 80 * 2**30), ("80 GB", 80e9), (5e9, 5e9)])
def test_memory_may_have_a_unit(text, size):
    assert AcceleratorSpec(name="x", memory_bytes=text).memory_bytes == size


def test_memory_with_a_wrong_unit():
    with pytest.raises(SpecError, match=r"'memory_bytes' is '80 Gibs': '80 Gibs' is not bytes"):
        AcceleratorSpec.from_mapping({"name": "x", "memory_bytes": "80 Gibs"})
