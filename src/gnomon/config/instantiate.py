"""Build the objects that a configuration names, after checking that every one of them may be built."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from gnomon.config._described import describe
from gnomon.config._locate import locate
from gnomon.config._project import make_importable
from gnomon.config._scalars import check_scalars
from gnomon.config.trust import TrustPolicy, is_component, is_noun
from gnomon.config.values import require_values, to_plain
from gnomon.errors import ConfigError, GnomonError, UntrustedTargetError, did_you_mean

RESERVED = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def instantiate(node: DictConfig | ListConfig | dict[str, Any] | list[Any], trusted: Sequence[str] = ()) -> Any:
    """Return the object tree that `node` describes, with Hydra's keys `_target_`, `_args_`, `_partial_`, `_recursive_`.

    Interpolations are resolved first and containers become plain dicts and lists. Nothing is called before the
    whole tree was checked by `TrustPolicy`; `trusted` adds packages to it. Raises UntrustedTargetError, or
    ConfigError for a target that does not exist or arguments that it does not take.

    Hydra's own `instantiate` would resolve strings a second time, after the check; this one resolves once.
    """
    config = node if isinstance(node, DictConfig | ListConfig) else OmegaConf.create(node)
    require_values(config)
    plain, path = to_plain(config), config._get_full_key("")
    project = Path.cwd()
    make_importable(project)
    return _build(plain, path, resolve_targets(plain, path, TrustPolicy(_packages(trusted), project)))


def resolve_targets(plain: Any, path: str, policy: TrustPolicy) -> dict[str, Callable[..., Any]]:
    """Return {target: callable} for every `_target_` in a plain tree, all of them trusted; call nothing."""
    named = list(_targets(plain, path))
    for key, target in named:
        _check_syntax(target, key)
        policy.check_name(target, key)
    found = {}
    for key, target in named:
        found[target] = locate(target, key)
        policy.check_object(target, found[target], key)
    return found


def _packages(trusted: Sequence[str]) -> tuple[str, ...]:
    for name in trusted:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"--trust {name!r} is not the name of a package. Write --trust PACKAGE.")
    return tuple(trusted)


def _targets(plain: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(plain, dict):
        if "_target_" in plain:
            yield _join(path, "_target_"), plain["_target_"]
        for key, value in plain.items():
            yield from _targets(value, _join(path, key))
    elif isinstance(plain, list):
        for index, value in enumerate(plain):
            yield from _targets(value, f"{path}[{index}]")


def _check_syntax(target: Any, key: str) -> None:
    if not isinstance(target, str):
        raise UntrustedTargetError(f"'{key}' is {target!r}; a target must be text such as 'gnomon.pipeline.Pipeline'.")
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UntrustedTargetError(f"'{key}' is '{target}', which is not a dotted name. Write package.module.Name.")
    if any(part.startswith("__") for part in parts):
        raise UntrustedTargetError(f"'{key}' is '{target}': a configuration may not name double-underscore attributes.")


def _build(plain: Any, path: str, targets: dict[str, Callable[..., Any]]) -> Any:
    if isinstance(plain, list):
        return [_build(value, f"{path}[{index}]", targets) for index, value in enumerate(plain)]
    if not isinstance(plain, dict):
        return plain
    if "_target_" not in plain:
        return {key: _build(value, _join(path, key), targets) for key, value in plain.items()}
    recursive = _flag(plain, "_recursive_", True, path)
    values = {
        key: _build(value, _join(path, key), targets) if recursive else value
        for key, value in plain.items()
        if key not in RESERVED or key == "_args_"
    }
    positional = values.pop("_args_", [])
    if not isinstance(positional, list):
        raise ConfigError(f"'{_join(path, '_args_')}' must be a list, found {type(positional).__name__}.")
    if plain.get("_convert_", "all") != "all":
        raise ConfigError(f"'{_join(path, '_convert_')}' must be 'all': targets are given plain lists and dicts.")
    target = plain["_target_"]
    name = f"'{path}' ({target})" if path else f"'{target}'"
    partial = _flag(plain, "_partial_", False, path)
    _check_arguments(targets[target], positional, values, name, partial)
    if is_component(targets[target]):
        check_scalars(targets[target], values, path, target)
    made = _call(targets[target], positional, values, name, partial)
    describe(made, plain, tuple(targets[each] for _, each in _targets(plain, path)))
    return made


def _call(call: Callable[..., Any], args: list[Any], values: dict[str, Any], name: str, partial: bool) -> Any:
    if partial:
        return functools.partial(call, *args, **values)
    try:
        return call.from_mapping(values, name) if is_noun(call) else call(*args, **values)  # type: ignore[attr-defined]
    except GnomonError:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}".rstrip(".: ")
        raise ConfigError(f"{name} could not be made: {message}. Check its arguments.") from error


def _check_arguments(
    call: Callable[..., Any], args: list[Any], values: dict[str, Any], name: str, partial: bool
) -> None:
    """Raise ConfigError for the first argument that `call` does not take, or that it needs and was not given."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    keywords = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for key in values:
            if key not in keywords:
                raise ConfigError(f"{name} has no argument '{key}'. {did_you_mean(key, keywords)}".rstrip())
    try:
        (signature.bind_partial if partial else signature.bind)(*args, **values)
    except TypeError as error:
        valid = f" It takes {', '.join(keywords)}." if keywords else ""
        raise ConfigError(f"{name} cannot be called so: {error}.{valid}") from None


def _flag(plain: dict[str, Any], key: str, default: bool, path: str) -> bool:
    value = plain.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"'{_join(path, key)}' must be true or false, found {value!r}.")
    return value


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
