"""Models, accelerators and clusters by name: one YAML file per entry, each with its source.

A new entry is a new file in `models/`, `accelerators/` or `clusters/`; its name is the file's. Peaks are dense;
memory sizes are the vendor's GB read as GiB, which is what the devices report; what nobody publishes is absent.
"""

from gnomon.spec.catalog._load import (
    cluster_from_mapping,
    find_accelerator,
    list_accelerators,
    list_clusters,
    list_models,
    list_stacks,
    load_accelerator,
    load_cluster,
    load_model,
    load_stack,
)

__all__ = [
    "cluster_from_mapping",
    "find_accelerator",
    "list_accelerators",
    "list_clusters",
    "list_models",
    "list_stacks",
    "load_accelerator",
    "load_cluster",
    "load_model",
    "load_stack",
]
