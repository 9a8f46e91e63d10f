"""Which callables a configuration may name as `_target_`.

A configuration may come from anywhere, so a target must be *defined* in a trusted package: reaching `os.system`
through a trusted module that happens to import `os` does not count. Trusted are the parts of gnomon, torch and
torchmetrics below, the user's project folder, installed plugins of gnomon, and what the user names with `--trust`.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gnomon.config._project import is_project_path
from gnomon.errors import UntrustedTargetError, did_you_mean

# what builds networks, optimizers and data; the rest of torch loads pickles, compiles, or starts processes
TORCH_NAMESPACES = ("torch.nn", "torch.optim", "torch.distributions", "torch.utils.data", "torch.amp")
TORCH_EXCLUDED = ("torch.utils.data.datapipes", "torch.utils.data.graph", "torch.utils.data.graph_settings")
TORCH_FUNCTIONS = frozenset(
    f"torch.{name}" for name in ("device", "Generator", "tensor", "zeros", "ones", "full", "arange", "linspace")
)
# bases are compared by name, because torch and the nouns are slow to import
NOUN = "gnomon.spec._noun.Noun"
COMPONENT = "gnomon.component.base.Component"
MODULE_BASES = ("torch.nn.modules.module.Module",)
GNOMON_BASES = (COMPONENT, NOUN, *MODULE_BASES)
GNOMON_EXCLUDED = ("gnomon.launch",)
FIRST_PARTY = {
    "gnomon": "Of gnomon, a configuration may name components, modules and nouns, and nothing in gnomon.launch.",
    "torch": f"Of torch, a configuration may name the public classes and functions of {', '.join(TORCH_NAMESPACES)}.",
    "torchmetrics": "Of torchmetrics, a configuration may name metrics.",
}


@dataclass(frozen=True)
class TrustPolicy:
    """Decides on names before anything is imported, and on the objects that they lead to."""

    trusted: tuple[str, ...] = ()
    project: Path = field(default_factory=Path.cwd)

    def check_name(self, target: str, key: str) -> None:
        """Raise UntrustedTargetError unless a dotted name lies in a trusted package; imports nothing."""
        top = target.partition(".")[0]
        if _under(target, self.trusted):
            return
        if top in FIRST_PARTY:
            allowed = _first_party_allows(target) and not _has_private_part(target)
        else:
            allowed = self._is_project_package(top) or top in self._plugins
        if not allowed:
            raise self._refusal(target, target, key)

    def check_object(self, target: str, found: Any, key: str) -> None:
        """Raise UntrustedTargetError unless `found`, which `target` leads to, is defined in a trusted package."""
        module = getattr(found, "__module__", None)
        module = module if isinstance(module, str) else type(found).__module__
        top = module.partition(".")[0]
        if _under(module, self.trusted) or _is_torch_function(target, module):
            return
        if top in FIRST_PARTY:
            allowed = _first_party_allows(module) and _first_party_offers(top, found)
        else:
            allowed = self._is_project_module(module) or top in self._plugins
        if not allowed:
            raise self._refusal(target, f"{module}.{getattr(found, '__qualname__', type(found).__qualname__)}", key)

    def _is_project_package(self, top: str) -> bool:
        """Whether importing `top` would read the project folder (and nothing that is installed there)."""
        if top in sys.stdlib_module_names:
            return False
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
        return all(is_project_path(place, self.project) for place in places)

    def _is_project_module(self, module: str) -> bool:
        return is_project_path(getattr(sys.modules.get(module), "__file__", None), self.project)

    @cached_property
    def _plugins(self) -> frozenset[str]:
        """Top-level packages behind the installed entry points of gnomon's groups."""
        points = entry_points()
        groups = [group for group in points.groups if group.startswith("gnomon.")]
        names = {point.module.partition(".")[0] for group in groups for point in points.select(group=group)}
        return frozenset(names - sys.stdlib_module_names - set(FIRST_PARTY))

    def _refusal(self, target: str, definition: str, key: str) -> UntrustedTargetError:
        top = definition.partition(".")[0]
        what = f"'{target}'" if target == definition else f"'{target}', which is '{definition}'"
        rule = FIRST_PARTY.get(top)
        if rule is None:
            rule = f"Trusted are {', '.join(FIRST_PARTY)}, installed gnomon plugins and modules in {self.project}."
            near = did_you_mean(top, FIRST_PARTY)
            rule += f" {near}" if near.startswith("Did you mean") else ""
        package = definition.rpartition(".")[0] if top in FIRST_PARTY else top
        return UntrustedTargetError(
            f"'{key}' is {what}: a configuration may not run that. {rule} "
            f"A target runs with your rights; if you trust this one, add --trust {package or top}."
        )


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _has_private_part(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def _first_party_allows(name: str) -> bool:
    """Whether a dotted name or a module of a first-party package lies in the part that configurations may use."""
    if name in TORCH_FUNCTIONS:
        return True
    if name.partition(".")[0] == "torch":
        return _under(name, TORCH_NAMESPACES) and not _under(name, TORCH_EXCLUDED)
    return not _under(name, GNOMON_EXCLUDED)


def _is_torch_function(target: str, module: str) -> bool:
    """Whether `target` is a function of torch that is written in C, where the module of definition says little."""
    parent = target.rpartition(".")[0]
    return module.partition(".")[0] == "torch" and (target in TORCH_FUNCTIONS or _is_kernel(parent, module))


def _is_kernel(parent: str, module: str) -> bool:
    return parent == "torch.nn.functional" and module in ("torch", "torch._C._nn")


def _first_party_offers(top: str, found: Any) -> bool:
    """Whether `found` is of the kind that the package offers to configurations."""
    if top == "torch":
        plain = "." not in getattr(found, "__qualname__", ".")
        return plain and (inspect.isclass(found) or inspect.isroutine(found))
    if not inspect.isclass(found):
        return False
    offered = GNOMON_BASES if top == "gnomon" else MODULE_BASES
    return any(_has_base(found, base) for base in offered)


def is_noun(found: Any) -> bool:
    """Whether `found` is a class of noun."""
    return inspect.isclass(found) and _has_base(found, NOUN)


def is_component(found: Any) -> bool:
    """Whether `found` is a class of component."""
    return inspect.isclass(found) and _has_base(found, COMPONENT)


def _has_base(found: type, name: str) -> bool:
    return name in {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
