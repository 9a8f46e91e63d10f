"""Accelerators, clusters, rates and models of the user's own, in files and in place."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from catalog_page import PAGE
from gnomon.errors import CatalogError, SpecError
from gnomon.plan.planner import plan
from gnomon.spec._noun import read_mapping
from gnomon.spec.catalog import cluster_from_mapping, load_accelerator, load_cluster, load_stack
from gnomon.spec.resolve import resolve_cluster, resolve_inputs, resolve_model
from plan_fixtures import TINY

CATALOG = Path(str(files("gnomon.spec.catalog")))
CHIP = {"name": "mychip", "peak_flops": {"bf16": 1e15}, "memory_bandwidth_bytes_per_s": 1e12}
NODE = {"name": "mine", "accelerators_per_node": 1}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_of_the_page_plans(here):
    blocks = re.findall(
        r"^```yaml\n# (\S+\.yaml)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    for name, text in blocks:
        (here / name).write_text(text)
    inputs = resolve_inputs(read_mapping("my-plan.yaml"))
    cluster = inputs.cluster
    assert (cluster.name, cluster.accelerator.name, cluster.num_accelerators) == ("my-cluster", "my-h100", 32)
    hopper = load_cluster("dgx-h100").rates
    assert (cluster.rates.network, cluster.rates.matmul["bf16"]) == (0.7, 0.66)
    assert (cluster.rates.memory, cluster.rates.matmul["fp8"]) == (hopper.memory, hopper.matmul["fp8"])
    estimate = plan(*inputs)
    assert 0.1 < estimate.mfu < 0.7
    assert "peak bf16 (peak of 'my-h100' as described)" in estimate.sources["mfu"]
    # what is written by hand below `rates` and in the stack is what the fitted file says
    fitted = yaml.safe_load((here / "fitted.yaml").read_text())
    stated = read_mapping("my-cluster.yaml")["rates"]
    assert stated == {"base": "nvidia-hopper", **fitted["nvidia-hopper"]}
    assert load_stack("my-stack.yaml").run_ahead == fitted["megatron-core"]["run_ahead"]


def test_a_copy_of_a_catalog_file_is_a_description(here):
    shutil.copy(CATALOG / "accelerators" / "h100-sxm.yaml", here / "my-h100.yaml")
    shutil.copy(CATALOG / "clusters" / "dgx-h100.yaml", here / "my-dgx.yaml")
    shutil.copy(CATALOG / "models" / "gpt2.yaml", here / "my-gpt.yaml")
    catalog = load_cluster("dgx-h100")
    assert resolve_cluster("my-dgx.yaml", 1) == catalog.model_copy(update={"name": "my-dgx"})
    assert resolve_model("my-gpt.yaml").name == "my-gpt"
    for accelerator in ("my-h100.yaml", "./my-h100.yaml", {"name": "my-h100", **read_mapping("my-h100.yaml")}):
        cluster = resolve_cluster({**NODE, "accelerator": accelerator}, 1)
        assert cluster.accelerator == load_accelerator("h100-sxm").model_copy(update={"name": "my-h100"})
        assert cluster.rates == catalog.rates
        assert cluster.peak_source == "peak of 'my-h100' as described"


def test_rates_by_the_name_of_a_generation():
    hopper = load_cluster("dgx-h100").rates
    assert cluster_from_mapping({**NODE, "accelerator": CHIP}).rates is None
    assert cluster_from_mapping({**NODE, "accelerator": CHIP, "rates": "nvidia-hopper"}).rates == hopper
    # what the cluster says goes before what its accelerator says
    assert cluster_from_mapping({**NODE, "accelerator": "a100-80gb", "rates": "nvidia-hopper"}).rates == hopper


def test_a_saved_cluster_is_read_back():
    cluster = load_cluster("dgx-h100")
    assert cluster_from_mapping(cluster.to_mapping()) == cluster
    assert cluster_from_mapping({**cluster.to_mapping(), "accelerator": cluster.accelerator}) == cluster


def test_the_peak_of_a_catalog_entry_keeps_its_name():
    cluster = cluster_from_mapping({**NODE, "accelerator": "h100-sxm"})
    assert cluster.peak_source == "catalog entry 'h100-sxm', dense peak"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"accelerator": 5},
            SpecError,
            "accelerator is 5; give a name of the catalog, the path of a YAML or JSON file",
        ),
        ({"accelerator": ["h100-sxm"]}, SpecError, r"accelerator is \['h100-sxm'\]; give a name"),
        ({"accelerator": "h100-smx"}, CatalogError, "Did you mean 'h100-sxm'"),
        ({"accelerator": "./none.yaml"}, SpecError, "File not found: 'none.yaml'"),
        ({"accelerator": {**CHIP, "peak_flops": 3}}, SpecError, "'peak_flops' is 3: expected a mapping of keys"),
        ({"accelerator": {**CHIP, "peak_flop": {}}}, SpecError, "accelerator: unknown key 'peak_flop'. Did you mean"),
        ({"rates": 0.5}, SpecError, "rates are 0.5; give the name of a generation"),
        ({"rates": "nvidia-hoper"}, CatalogError, "Did you mean 'nvidia-hopper'"),
        ({"rates": {"base": "nvidia-hopper", "netwrk": 1}}, SpecError, "unknown key 'netwrk'. Did you mean 'network'"),
        ({"tiers": 3}, SpecError, "'tiers' is 3: expected a list"),
        ({"tiers": [5]}, SpecError, "'tiers.0' is 5: expected a mapping of keys to values"),
    ],
)
def test_what_is_wrong_with_an_entry(changes, error, words):
    with pytest.raises(error, match=words) as caught:
        resolve_cluster({**NODE, "accelerator": CHIP, **changes}, 1)
    assert "instance of" not in str(caught.value)


def test_an_own_model_needs_no_name(here):
    TINY.save(here / "named.yaml")
    assert resolve_model("named.yaml").name == TINY.name
