"""topology.yaml of SLURM 25.05 and later: several named topologies in one file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from gnomon.documents import load_yaml
from gnomon.errors import did_you_mean
from gnomon.spec._noun import Noun
from gnomon.topology.graph import TopologyError
from gnomon.topology.sources._slurm_switches import Paths, block_paths, make_switch, tree_paths

Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


class YamlSwitch(Noun):
    """One switch of a tree."""

    switch: Name
    children: Name | None = None
    nodes: Name | None = None


class YamlTree(Noun):
    """topology/tree."""

    switches: tuple[YamlSwitch, ...]


class YamlBlock(Noun):
    """One block."""

    block: Name
    nodes: Name | None = None


class YamlBlocks(Noun):
    """topology/block."""

    block_sizes: tuple[int, ...] = ()
    blocks: tuple[YamlBlock, ...]


class YamlTopology(Noun):
    """One entry of the file."""

    topology: Name
    cluster_default: bool = False
    tree: YamlTree | None = None
    block: YamlBlocks | None = None
    flat: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tree is not None) + (self.block is not None) + self.flat != 1:
            raise ValueError(f"topology '{self.topology}' must have exactly one of tree, block and flat")
        return self


def read_yaml_paths(text: str, name: str | None, source: str) -> Paths:
    """Return the path of each node in the topology `name`, by default the first with `cluster_default: true`."""
    entries = load_yaml(text, source, TopologyError)
    if not isinstance(entries, list) or not entries:
        raise TopologyError(f"{source} must hold a list of topologies, found {type(entries).__name__}.")
    chosen = _choose([YamlTopology.from_mapping(entry, where=source) for entry in entries], name, source)
    where = f"{source}, topology '{chosen.topology}'"
    if chosen.tree is not None:
        switches = [make_switch(item.switch, item.nodes, item.children, where) for item in chosen.tree.switches]
        return tree_paths(switches, where)
    if chosen.block is not None:
        blocks = [make_switch(item.block, item.nodes, None, where) for item in chosen.block.blocks]
        return block_paths(blocks, chosen.block.block_sizes, where)
    raise TopologyError(f"{where} is flat: SLURM knows no switches there.")


def _choose(topologies: list[YamlTopology], name: str | None, source: str) -> YamlTopology:
    names = [topology.topology for topology in topologies]
    if name is not None:
        if name not in names:
            raise TopologyError(f"{source} has no topology '{name}'. {did_you_mean(name, names)}")
        return topologies[names.index(name)]
    default = next((topology for topology in topologies if topology.cluster_default), None)
    if default is None and len(topologies) > 1:
        raise TopologyError(f"{source} has several topologies and no cluster_default. Name one of: {', '.join(names)}.")
    return default or topologies[0]
