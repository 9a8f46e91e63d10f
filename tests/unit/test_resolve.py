"""Names, paths and mappings of a plan become nouns."""

import json
from pathlib import Path

import pytest

from gnomon.errors import CatalogError, GnomonError, SpecError
from gnomon.plan.planner import plan
from gnomon.spec import Layout, Workload
from gnomon.spec.catalog import load_cluster, load_model
from gnomon.spec.resolve import resolve_cluster, resolve_inputs, resolve_model
from pipeline_fixtures import constant_profile
from plan_fixtures import TINY

HF_CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": 128, "vocab_size": 256}
EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "plan").glob("*.yaml"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_of_the_catalog():
    assert resolve_model("gpt2") == load_model("gpt2")


def test_a_model_in_a_file(here):
    TINY.save(here / "tiny.yaml")
    assert resolve_model("tiny.yaml") == TINY
    assert resolve_model("./tiny.yaml") == TINY
    assert resolve_model(TINY.to_mapping()) == TINY


def test_a_hugging_face_config(here):
    (here / "my-gpt").mkdir()
    (here / "my-gpt" / "config.json").write_text(json.dumps(HF_CONFIG))
    for value in ("my-gpt/config.json", "./my-gpt", "my-gpt/"):
        model = resolve_model(value)
        assert (model.name, model.num_layers, model.hidden_size) == ("my-gpt", 2, 64)


def test_a_cluster_of_the_catalog():
    assert resolve_cluster("dgx-a100", 1) == load_cluster("dgx-a100")
    assert resolve_cluster({"name": "dgx-a100", "num_nodes": 3}, 1).num_accelerators == 24


def test_a_cluster_described(here):
    described = {"name": "mine", "accelerator": "h100-sxm", "accelerators_per_node": 4}
    cluster = resolve_cluster(described, 1)
    assert cluster.accelerator.name == load_cluster("dgx-h100").accelerator.name
    cluster.save(here / "mine.yaml")
    assert resolve_cluster("mine.yaml", 1) == cluster


def test_a_hardware_profile(here):
    profile = constant_profile()
    profile.save(here / "hardware.yaml")
    ranks = next(iter(profile.shares))
    assert resolve_cluster("hardware.yaml", ranks) == profile.cluster(ranks)
    assert resolve_cluster("./", ranks) == profile.cluster(ranks)
    with pytest.raises(SpecError, match="gnomon calibrate --ranks 77"):
        resolve_cluster("hardware.yaml", 77)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("gpt22", CatalogError, "Did you mean 'gpt2'.*A path to a file ends in"),
        ("nowhere/config.json", SpecError, "File not found: 'nowhere/config.json'"),
        ("x.yaml", SpecError, "File not found"),
        (3, SpecError, "'model' is 3; give a catalog name"),
        (["gpt2"], SpecError, "give a catalog name"),
        ({"num_layer": 2}, SpecError, "Did you mean 'num_layers'"),
    ],
)
def test_a_wrong_model(value, error, words):
    with pytest.raises(error, match=words):
        resolve_model(value)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("dgx-a10", CatalogError, "Did you mean 'dgx-a100'"),
        ({"name": "dgx-a10"}, CatalogError, "Did you mean 'dgx-a100'"),
        ({"name": "dgx-a100", "tiers": []}, SpecError, "tiers cannot be changed"),
        ({"nam": "dgx-a100"}, SpecError, "unknown key 'nam'. Did you mean 'name'"),
        (
            "rtx-4090",
            SpecError,
            r"accelerator, not a cluster: .*\. Describe the machine: {.*: rtx-4090, ",
        ),
        (
            "H100-SXM",
            SpecError,
            r"a catalog cluster that has it \(.*dgx-h100, .*\), or describe the machine: {",
        ),
        ({"name": "rtx-4090", "num_nodes": 2}, SpecError, "'rtx-4090' is an accelerator, not a cluster"),
        ({"name": "dgx-a100", "num_nodes": 0}, SpecError, "num_nodes"),
        (None, SpecError, "'cluster' is None"),
    ],
)
def test_a_wrong_cluster(value, error, words):
    with pytest.raises(error, match=words):
        resolve_cluster(value, 1)


def test_inputs():
    config = {"model": "gpt2", "cluster": "dgx-a100", "workload": {"seq_len": 8, "global_batch": 4}}
    inputs = resolve_inputs(config)
    assert inputs == (load_model("gpt2"), load_cluster("dgx-a100"), Layout(), Workload(seq_len=8, global_batch=4))
    with pytest.raises(SpecError, match=r"unknown key 'layot'. Did you mean 'layout'"):
        resolve_inputs({**config, "layot": {}})
    with pytest.raises(SpecError, match="no 'workload'"):
        resolve_inputs({**config, "workload": None})
    with pytest.raises(SpecError, match="Did you mean 'zero_stage'"):
        resolve_inputs({**config, "layout": {"zero_stag": 2}})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_planned(here, path):
    from gnomon.config import load_config, to_plain

    config = to_plain(load_config(path))
    if config["cluster"] == "hardware.yaml":
        with pytest.raises(GnomonError, match=r"File not found: 'hardware.yaml'"):
            resolve_inputs(config)
        constant_profile().save(here / "hardware.yaml")
    estimate = plan(*resolve_inputs(config))
    assert estimate.step_time_s > 0
    assert estimate.mfu is None or 0 < estimate.mfu < 1
