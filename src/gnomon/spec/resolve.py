"""Turn what a configuration says about a model or a cluster (a name, a path, a mapping) into a noun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gnomon.errors import CatalogError, SpecError, did_you_mean
from gnomon.spec._noun import FILE_SUFFIXES, names_file, read_mapping
from gnomon.spec.catalog import cluster_from_mapping, load_cluster, load_model
from gnomon.spec.cluster import ClusterSpec
from gnomon.spec.hardware_profile import HardwareProfile
from gnomon.spec.layout import Layout
from gnomon.spec.model import ModelSpec
from gnomon.spec.workload import Workload

T = TypeVar("T")


class PlanInputs(NamedTuple):
    """What the planner needs."""

    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    workload: Workload


def resolve_inputs(config: Mapping[str, Any]) -> PlanInputs:
    """Return the nouns under `model`, `cluster`, `layout` (default: one rank) and `workload`; raise SpecError."""
    for key in config:
        if key not in PlanInputs._fields:
            raise SpecError(f"The plan has an unknown key '{key}'. {did_you_mean(str(key), PlanInputs._fields)}")
    for key in ("model", "cluster", "workload"):
        if config.get(key) is None:
            raise SpecError(f"The plan has no '{key}'. It needs model, cluster and workload; layout is optional.")
    layout = Layout.from_mapping(config.get("layout") or {}, where="layout")
    return PlanInputs(
        model=resolve_model(config["model"]),
        cluster=resolve_cluster(config["cluster"], layout.num_ranks),
        layout=layout,
        workload=Workload.from_mapping(config["workload"], where="workload"),
    )


def resolve_model(value: str | Mapping[str, Any]) -> ModelSpec:
    """Return the model of a catalog name, a path to a spec or a Hugging Face config.json, or a mapping."""
    if isinstance(value, Mapping):
        return ModelSpec.from_mapping(value, where="model")
    path = _file(value, "model", "config.json")
    if path is None:
        return _from_catalog(load_model, value)
    data = read_mapping(path)
    if "model_type" in data or "architectures" in data:
        return ModelSpec.from_hf_config(data, name=path.parent.name if path.name == "config.json" else path.stem)
    return ModelSpec.from_mapping({"name": path.stem, **data}, where=str(path))


def resolve_cluster(value: str | Mapping[str, Any], num_ranks: int) -> ClusterSpec:
    """Return the cluster of a catalog name, a path to a hardware profile or cluster, or a mapping.

    A file without `name` is called by the file's.
    A mapping without `accelerator` takes the cluster `name` from the catalog, with `num_nodes` of its nodes.
    A hardware profile gives the rates that it measured with `num_ranks` ranks on the machine.
    """
    if isinstance(value, Mapping):
        return _cluster_from_mapping(value, "cluster", num_ranks)
    path = _file(value, "cluster", "hardware.yaml")
    if path is None:
        return _from_catalog(load_cluster, value)
    data = read_mapping(path)
    if "accelerator" in data and "shares" not in data:
        data = {"name": path.stem, **data}
    return _cluster_from_mapping(data, str(path), num_ranks)


def _cluster_from_mapping(data: Mapping[str, Any], where: str, num_ranks: int) -> ClusterSpec:
    if "shares" in data:
        return HardwareProfile.from_mapping(data, where=where).cluster(num_ranks)
    if "accelerator" in data or "name" not in data:
        return cluster_from_mapping(data, where=where)
    unknown = set(data) - {"name", "num_nodes"}
    if unknown:
        raise SpecError(
            f"{where}: {', '.join(sorted(unknown))} cannot be changed on the catalog cluster '{data['name']}'. "
            "Give name and num_nodes only, or describe the whole cluster."
        )
    return load_cluster(data["name"], data.get("num_nodes"))


def _file(value: Any, key: str, usual_name: str) -> Path | None:
    """Return the file that a text names, or None when it is a catalog name; raise SpecError when it is neither."""
    if not isinstance(value, str):
        raise SpecError(f"'{key}' is {value!r}; give a catalog name, the path of a file, or a mapping.")
    if not names_file(value):
        return None
    path = Path(value).expanduser()
    return path / usual_name if path.is_dir() else path


def _from_catalog(load: Callable[[str], T], name: str) -> T:
    try:
        return load(name)
    except CatalogError as error:
        raise CatalogError(f"{error} A path to a file ends in {', '.join(FILE_SUFFIXES)} or has a '/'.") from None
