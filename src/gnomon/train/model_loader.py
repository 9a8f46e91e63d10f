"""Put stored weights into a module: all of them or an error that lists what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnomon.component import Component
from gnomon.errors import CheckpointError
from gnomon.train.weights import Kind, read_weights

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before the names of weights."""
_MAX_LISTED = 5


def load_model(
    source: str | Path,
    module: nn.Module | None = None,
    *,
    weights: Kind = "model",
    trust_pickle: bool = False,
    tracking_uri: str | None = None,
) -> nn.Module:
    """Return `module` with the weights in `source`; see `gnomon.train.weights.read_weights` for what that can be.

    Without a module, `source` must be a whole model and trusted. Raises CheckpointError, with the module unchanged,
    when a weight is missing, left over or of another shape.
    """
    found = read_weights(source, weights=weights, trust_pickle=trust_pickle, tracking_uri=tracking_uri)
    if module is None:
        if isinstance(found, nn.Module):
            return found
        raise CheckpointError(f"'{source}' holds weights but no model. Give the module that they belong to.")
    load_weights(module, found.state_dict() if isinstance(found, nn.Module) else found, str(source))
    return module


def load_weights(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `module`; raise CheckpointError, with the module unchanged, unless they are exactly its own.

    Prefixes of DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) make no difference, on either side.
    """
    own = module.state_dict()
    names = dict(zip(_plain_names(own), own, strict=True))
    given = dict(zip(_plain_names(weights), weights.values(), strict=True))
    if len(given) < len(weights):
        raise CheckpointError(f"'{source}' holds weights with and without a wrapper's prefix, so names are ambiguous.")
    given |= _shared(names, own, given)
    problems = [
        _listed("missing", names.keys() - given.keys()),
        _listed("not in the model", given.keys() - names.keys()),
        _listed("of another shape", _misshaped(names, own, given)),
    ]
    if found := "; ".join(problem for problem in problems if problem):
        raise CheckpointError(
            f"The weights in '{source}' do not fit {type(module).__name__}: {found}. "
            "Make the model with the settings that it was trained with."
        )
    with torch.no_grad():
        module.load_state_dict({names[plain]: tensor for plain, tensor in given.items()})


class ModelLoader(Component):
    """Loads weights into `model` when it is called or executed; `source`, `weights` as for `load_model`.

    `model` is the module, or makes one when it is called (`_partial_: true` in YAML). Pickles are not trusted here: a
    configuration that comes from elsewhere must not be able to ask for that.
    """

    def __init__(
        self,
        source: str,
        model: nn.Module | Callable[[], nn.Module],
        weights: Kind = "model",
        tracking_uri: str | None = None,
    ) -> None:
        self.source = source
        self.model = model
        self.weights = weights
        self.tracking_uri = tracking_uri

    def __call__(self) -> nn.Module:
        """Return the model with its weights; raise CheckpointError as `load_model` does."""
        module = self.model if isinstance(self.model, nn.Module) else self.model()
        return load_model(self.source, module, weights=self.weights, tracking_uri=self.tracking_uri)

    def execute(self) -> nn.Module:
        """Return the model with its weights."""
        return self()


def _plain_names(names: Iterable[str]) -> list[str]:
    """Return the names without the prefixes of wrappers; `module.` only where every name has it."""
    listed = [name.replace(_WRAPPERS[1], "") for name in names]
    while listed and all(name.startswith(_WRAPPERS[0]) for name in listed):
        listed = [name.removeprefix(_WRAPPERS[0]) for name in listed]
    return listed


def _shared(names: dict[str, str], own: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what safetensors leaves out: further names of a weight that the module uses more than once."""
    owners = {own[names[name]].data_ptr(): name for name in names.keys() & given.keys() if own[names[name]].numel()}
    missing = {name: owners.get(own[names[name]].data_ptr()) for name in names.keys() - given.keys()}
    return {
        name: given[owner]
        for name, owner in missing.items()
        if owner is not None and own[names[name]].shape == own[names[owner]].shape
    }


def _misshaped(names: dict[str, str], own: dict[str, Any], given: dict[str, Tensor]) -> list[str]:
    shapes = ((name, tuple(given[name].shape), tuple(own[names[name]].shape)) for name in names.keys() & given.keys())
    return [f"{name} {stored} instead of {needed}" for name, stored, needed in shapes if stored != needed]


def _listed(what: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return ""
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return f"{what} ({len(listed)}): {', '.join(listed[:_MAX_LISTED])}{more}"
