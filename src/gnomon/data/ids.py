"""The names of samples, by which predictions are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset


def sample_ids(dataset: Any, indices: Sequence[int]) -> list[Any] | None:
    """Return the names of samples, or None if the dataset has none; a dataset gives them by a method of this name."""
    if isinstance(dataset, Subset):
        return sample_ids(dataset.dataset, [dataset.indices[index] for index in indices])
    if isinstance(dataset, ConcatDataset):
        return _ids_of_parts(dataset, indices)
    identify = getattr(dataset, "sample_ids", None)
    return identify(indices) if callable(identify) else None


def _ids_of_parts(dataset: ConcatDataset[Any], indices: Sequence[int]) -> list[Any] | None:
    ends = np.asarray(dataset.cumulative_sizes)
    parts = np.searchsorted(ends, indices, side="right")
    ids = np.empty(len(indices), dtype=object)
    for part in np.unique(parts):
        places = np.flatnonzero(parts == part)
        start = ends[part - 1] if part else 0
        found = sample_ids(dataset.datasets[part], [int(indices[place] - start) for place in places.tolist()])
        if found is None:
            return None
        ids[places] = found
    return ids.tolist()
