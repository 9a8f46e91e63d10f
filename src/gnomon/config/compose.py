"""Compose a configuration from YAML files, config groups and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from gnomon.config._explain import (
    explain_missing_config,
    explain_omegaconf,
    explain_unknown_key,
    first_paragraph,
    key_paths,
)
from gnomon.config._source import check_source, is_url
from gnomon.config.resolvers import register_resolvers, set_moment
from gnomon.config.sweep import parse_overrides
from gnomon.documents import explain_yaml
from gnomon.errors import ConfigError, did_you_mean

PACKAGED = "gnomon.conf"
_COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, OSError)


class GnomonSearchPath(SearchPathPlugin):
    """Puts the packaged config groups behind the user's own folder on the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append `pkg://gnomon.conf`."""
        search_path.append(provider="gnomon", path=f"pkg://{PACKAGED}")


def compose(
    config_path: str | Path | None = None,
    config_name: str = "demo",
    overrides: Sequence[str] = (),
    moment: datetime | None = None,
) -> DictConfig:
    """Return the configuration `config_name` with `overrides` applied, interpolations still open.

    `config_path` is the folder to look in first; None means the packaged configurations only. Where `config_name` is
    a web address, that file is fetched instead. `moment` is the time of `${gnomon.now:...}`, the same everywhere in
    one composition (default: now). Raises ConfigError for a file that is missing, malformed or too large, an unknown
    key or option, and an override that cannot be read.
    """
    register_resolvers()
    parsed = parse_overrides(overrides)
    _refuse_sweeps(parsed)
    if is_url(config_name):
        config_path, config_name = locate_config(config_name)
    folder = None if config_path is None else _folder(config_path)
    name = config_name.removesuffix(".yaml")
    check_source(_primary_source(folder, name))
    try:
        config = _compose(folder, name, list(overrides))
    except RecursionError:
        raise ConfigError(f"The configuration '{name}' refers to itself or is nested too deeply.") from None
    except _COMPOSITION_ERRORS as error:
        raise _explain(error, folder, name, parsed) from None
    set_moment(config, moment or datetime.now().astimezone())
    return config


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the configuration in a YAML file anywhere, or at a web address, composed as by `compose`."""
    return compose(*locate_config(file), overrides)


def locate_config(file: str | Path) -> tuple[Path, str]:
    """Return the folder and the name by which `compose` finds a YAML file; raise ConfigError when it cannot.

    The file at a web address is fetched, as by `fetch_config`.
    """
    if is_url(str(file)):
        from gnomon.config.remote import fetch_config

        return fetch_config(str(file))
    path = Path(file).expanduser()
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise ConfigError(f"'{file}' is {what}. Give a YAML file.")
    if not path.is_file():
        near = did_you_mean(path.name, [neighbour.name for neighbour in _yaml_files(path.parent)])
        raise ConfigError(f"Configuration file '{file}' not found (looked for '{path.absolute()}'). {near}".rstrip())
    if path.suffix != ".yaml" or "@" in path.stem or ":" in path.stem:
        raise ConfigError(f"'{file}': a configuration file must end in .yaml and have no '@' or ':' in its name.")
    return path.parent, path.stem


def _compose(folder: Path | None, name: str, overrides: list[str]) -> DictConfig:
    Plugins.instance().register(GnomonSearchPath)
    outer = GlobalHydra.instance().hydra  # a user's own Hydra program may be running
    GlobalHydra.instance().clear()
    try:
        if folder is None:
            initialize_config_module(PACKAGED, version_base="1.3")
        else:
            initialize_config_dir(str(folder), version_base="1.3")
        return hydra_compose(name, overrides=overrides)
    finally:
        GlobalHydra.instance().hydra = outer


def _refuse_sweeps(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(
                f"The override '{override.input_line}' gives several values to one key. To run once per value, add "
                f"--multirun; for a list, write {override.key_or_group}=[...]; for text with commas, quote it."
            )


def _folder(config_path: str | Path) -> Path:
    folder = Path(config_path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"Configuration folder '{config_path}' not found (looked for '{folder}').")
    return folder


def _primary_source(folder: Path | None, name: str) -> Traversable:
    """Return the file that `name` means; raise ConfigError that says where it was looked for."""
    packaged = resources.files(PACKAGED)
    places = [folder, packaged] if folder else [packaged]
    for place in places:
        file = place.joinpath(*f"{name}.yaml".split("/"))
        if file.is_file():
            return file
    looked = f"'{folder}' and the packaged configurations" if folder else "the packaged configurations"
    options = [file.name.removesuffix(".yaml") for place in places for file in _yaml_files(place)]
    raise ConfigError(f"Configuration '{name}' not found in {looked}. {did_you_mean(name, options)}".rstrip())


def _yaml_files(place: Traversable) -> list[Traversable]:
    return [file for file in place.iterdir() if file.name.endswith(".yaml")] if place.is_dir() else []


def _explain(error: Exception, folder: Path | None, name: str, overrides: Sequence[Override]) -> ConfigError:
    """Return the ConfigError for a composition that failed; the first override that breaks it is the culprit."""
    if isinstance(error, yaml.YAMLError):
        return ConfigError(explain_yaml(error))
    if isinstance(error, MissingConfigException):
        return explain_missing_config(error)
    lines = [str(override.input_line) for override in overrides]
    for index, override in enumerate(overrides):
        base = _try_compose(folder, name, lines[:index])
        if base is not None and _try_compose(folder, name, lines[: index + 1]) is None:
            return _explain_override(error, override, base)
    cause = error.__cause__
    reason = first_paragraph(cause if isinstance(cause, OmegaConfBaseException) else error)
    return ConfigError(f"The configuration '{name}' cannot be composed: {reason}".rstrip(".") + ".")


def _explain_override(error: Exception, override: Override, base: DictConfig) -> ConfigError:
    key, line = override.key_or_group, str(override.input_line)
    known = set(key_paths(base)) | {"hydra"}
    if not override.is_add() and not override.is_force_add() and key not in known:
        return explain_unknown_key(key, line, base)
    if override.is_add() and key in known:
        return ConfigError(f"The override '{line}' adds a key that exists. To change its value, write '{line[1:]}'.")
    if isinstance(error.__cause__, OmegaConfBaseException):
        return ConfigError(f"The override '{line}' does not fit: {explain_omegaconf(error.__cause__, base)}")
    return ConfigError(f"The override '{line}' does not fit: {first_paragraph(error)}")


def _try_compose(folder: Path | None, name: str, overrides: list[str]) -> DictConfig | None:
    try:
        return _compose(folder, name, overrides)
    except _COMPOSITION_ERRORS:
        return None
