"""Find and read catalog files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from gnomon.errors import CatalogError, SpecError, did_you_mean
from gnomon.spec._noun import names_file, read_mapping
from gnomon.spec.cluster import AcceleratorSpec, ClusterSpec
from gnomon.spec.device_rates import DeviceRates
from gnomon.spec.model import ModelSpec
from gnomon.spec.stack import SHARED_FIELDS, StackSpec

Kind = Literal["models", "accelerators", "clusters", "efficiencies", "stacks"]

_FOLDER = Path(__file__).parent


def list_models() -> tuple[str, ...]:
    """Return the names of all models, sorted."""
    return _names("models")


def list_accelerators() -> tuple[str, ...]:
    """Return the names of all accelerators, sorted."""
    return _names("accelerators")


def list_clusters() -> tuple[str, ...]:
    """Return the names of all clusters, sorted."""
    return _names("clusters")


def load_model(name: str) -> ModelSpec:
    """Return the model `name` (case does not matter); raise CatalogError with the nearest name if there is none."""
    entry = _read("models", name)
    return ModelSpec.from_mapping(entry, where=f"catalog model '{name}'")


def list_stacks() -> tuple[str, ...]:
    """Return the names of all software stacks, sorted."""
    return _names("stacks")


def load_stack(name: str) -> StackSpec:
    """Return the software stack `name` of the catalog, or the one that a YAML or JSON file describes.

    A file may name a stack of the catalog as its `base` and say only what differs. Raises CatalogError with the
    nearest name if there is none, SpecError for a file that cannot be read.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return _stack_from_file(Path(name))
    return StackSpec.from_mapping(_stack_entry(name), where=f"catalog stack '{name}'")


def _stack_from_file(path: Path) -> StackSpec:
    stated = _with_shared({"name": path.stem, **read_mapping(path)})
    base = stated.pop("base", None)
    return StackSpec.from_mapping({**(_stack_entry(str(base)) if base else {}), **stated}, where=str(path))


def _stack_entry(name: str) -> dict[str, Any]:
    return _with_shared(_read("stacks", name))


def _with_shared(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a description of a stack with the constants of the families that it names, unless it states them."""
    for owner, constants in SHARED_FIELDS.items():
        if entry.get(owner) is not None:
            other = _read("stacks", str(entry[owner]))
            entry = {**{field: other[field] for field in constants if field in other}, **entry}
    return entry


def load_accelerator(name: str) -> AcceleratorSpec:
    """Return the accelerator `name`; raise CatalogError with the nearest name if there is none."""
    return _accelerator(_read("accelerators", name), f"catalog accelerator '{name}'")


def load_cluster(name: str, num_nodes: int | None = None) -> ClusterSpec:
    """Return `num_nodes` nodes (default: one) of the cluster `name`, with generic achieved rates where published.

    Raises CatalogError with the nearest name if there is none, SpecError for the name of an accelerator.
    """
    _refuse_accelerator(name)
    entry = _read("clusters", name)
    if num_nodes is not None:
        entry["num_nodes"] = num_nodes
    return cluster_from_mapping(entry, where=f"catalog cluster '{name}'")


def cluster_from_mapping(data: Mapping[str, Any], where: str = "") -> ClusterSpec:
    """Return the cluster that `data` describes.

    Its `accelerator` is a name of the catalog, the path of a file or a description. Its `rates` are a name of the
    catalog or a description; without them it has those of the generation that the accelerator names.
    """
    if not isinstance(data, Mapping) or data.get("accelerator") is None:
        return ClusterSpec.from_mapping(data, where=where)
    given = data["accelerator"]
    entry, origin = _accelerator_entry(given, where)
    stated = {"rates": entry.get("efficiency"), **data, "accelerator": _accelerator(entry, origin)}
    stated["rates"] = _rates(stated["rates"], where)
    if isinstance(given, str) and not names_file(given):
        stated = {"peak_source": f"catalog entry '{given}', dense peak", **stated}
    return ClusterSpec.from_mapping(stated, where=where)


def find_accelerator(device_name: str) -> AcceleratorSpec | None:
    """Return the accelerator that its driver calls `device_name` (`torch.cuda.get_device_name`), or None."""
    entries = (_read("accelerators", name) for name in list_accelerators())
    found = next((entry for entry in entries if device_name in entry.get("device_names", ())), None)
    return load_accelerator(found["name"]) if found is not None else None


def _accelerator_entry(given: Any, where: str) -> tuple[Mapping[str, Any], str]:
    """Return (what a catalog name, the path of a file or a mapping says of an accelerator, where it says so)."""
    if isinstance(given, AcceleratorSpec):
        return given.to_mapping(), where
    if isinstance(given, Mapping):
        return given, f"{where}, accelerator" if where else "accelerator"
    if not isinstance(given, str):
        raise SpecError(
            f"{where or 'cluster'}: accelerator is {given!r}; give a name of the catalog, the path of a YAML or JSON "
            "file, or a mapping of keys to values."
        )
    if not names_file(given):
        return _read("accelerators", given), f"catalog accelerator '{given.lower()}'"
    path = Path(given).expanduser()
    return {"name": path.stem, **read_mapping(path)}, str(path)


def _accelerator(entry: Mapping[str, Any], where: str) -> AcceleratorSpec:
    described = {key: value for key, value in entry.items() if key not in ("efficiency", "device_names")}
    return AcceleratorSpec.from_mapping(described, where=where)


def _refuse_accelerator(name: str) -> None:
    key = str(name).lower()
    if key not in _names("accelerators") or key in _names("clusters"):
        return
    clusters = [cluster for cluster in _names("clusters") if _file("clusters", cluster)["accelerator"] == key]
    choose = f"Give a catalog cluster that has it ({', '.join(clusters)}), or describe" if clusters else "Describe"
    raise SpecError(
        f"'{key}' is an accelerator, not a cluster: it does not say how many a node has, nor what connects them. "
        f"{choose} the machine: {{name: mine, accelerator: {key}, accelerators_per_node: 1}} is one alone; several "
        "also need tiers."
    )


def _rates(given: Any, where: str) -> DeviceRates | None:
    """Return the rates of a generation by name, or those of a description, which may name one as its `base`."""
    if given is None or isinstance(given, DeviceRates):
        return given
    if isinstance(given, str):
        return DeviceRates.from_mapping(_read("efficiencies", given), where=f"catalog efficiency '{given}'")
    if not isinstance(given, Mapping):
        raise SpecError(
            f"{where or 'cluster'}: rates are {given!r}; give the name of a generation, as nvidia-hopper, or a mapping "
            "of keys to values."
        )
    stated = {key: value for key, value in given.items() if key != "base"}
    base = _read("efficiencies", str(given["base"])) if given.get("base") else {}
    return DeviceRates.from_mapping({**base, **_merged(base, stated)}, where=f"{where}, rates" if where else "rates")


def _merged(base: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stated, with the other entries of the base in each of its mappings."""
    return {
        key: {**base[key], **value} if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) else value
        for key, value in stated.items()
    }


@cache
def _names(kind: Kind) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (_FOLDER / kind).glob("*.yaml")))


def _read(kind: Kind, name: str) -> dict[str, Any]:
    names = _names(kind)
    key = str(name).lower()
    if key not in names:
        raise CatalogError(f"The catalog has no '{name}' among its {len(names)} {kind}. {did_you_mean(key, names)}")
    return {"name": key, **_file(kind, key)}


@cache
def _file(kind: Kind, name: str) -> Mapping[str, Any]:
    return MappingProxyType(read_mapping(_FOLDER / kind / f"{name}.yaml"))
