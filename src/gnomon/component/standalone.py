"""Use one component from the command line, with arguments taken from its signature."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from gnomon.component.base import Component
from gnomon.component.monitor import monitored
from gnomon.errors import ConfigError, GnomonError, did_you_mean


def main(component: type[Component], arguments: Sequence[str] | None = None) -> Any:
    """Make a component from command-line arguments, execute it, print what it returns (unless None) and return it.

    Every setting is an option (`--stop 5`), and every input of `execute` one under `--execute.`. They may also come
    from YAML (`--config FILE`) or from environment variables (`COUNT_STOP` for the class Count); `--print_config`
    prints them. An error is one message on stderr and an exit code. Call it under `if __name__ == "__main__":`.
    """
    try:
        made, inputs = parse_component(component, sys.argv[1:] if arguments is None else arguments)
        with monitored(made):
            output = made.execute(**inputs)
    except GnomonError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: Interrupted.", file=sys.stderr)
        sys.exit(130)
    if output is not None:
        print(output)
    return output


def parse_component(component: type[Component], arguments: Sequence[str]) -> tuple[Component, dict[str, Any]]:
    """Return the component that command-line arguments describe, and the inputs for its `execute`.

    Raises ConfigError for an argument that is unknown, missing or of the wrong type, and without jsonargparse.
    """
    if not (inspect.isclass(component) and issubclass(component, Component)):
        raise ConfigError(f"main() was given {component!r}; give it a class that derives from gnomon's Component.")
    parser = _make_parser(component)
    try:
        found = parser.instantiate(parser.parse_args(list(arguments)))
    except parser.refusal as error:
        raise ConfigError(_explain(str(error), parser.options)) from None
    settings = {key: value for key, value in vars(found).items() if key not in ("config", "execute")}
    inputs = vars(found.execute) if "execute" in found else {}
    return component(**settings), dict(inputs)


def _make_parser(component: type[Component]) -> Any:
    try:
        import jsonargparse
    except ModuleNotFoundError:
        raise ConfigError(
            f"Running {component.__name__} from the command line needs jsonargparse, which is not installed. "
            "Install it: pip install jsonargparse."
        ) from None
    description = (inspect.getdoc(component) or component.__name__).partition("\n")[0]
    parser: Any = jsonargparse.ArgumentParser(
        description=description, default_env=True, env_prefix=component.__name__.upper(), exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file with arguments.")
    names = parser.add_class_arguments(component, fail_untyped=False)
    if any(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in _inputs(component)):
        names += parser.add_method_arguments(component, "execute", "execute", fail_untyped=False)
    parser.options = [*(f"--{name}" for name in names), "--config", "--print_config", "--help"]
    parser.refusal = jsonargparse.ArgumentError
    return parser


def _inputs(component: type[Component]) -> list[inspect.Parameter]:
    return list(inspect.signature(component.execute).parameters.values())[1:]


def _explain(message: str, options: list[str]) -> str:
    """Return jsonargparse's message on one line, with the nearest option for one that does not exist."""
    text = " ".join(message.split()).rstrip(".")
    unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", text)
    key = re.search(r"Option '([\w.]+)' is not accepted", text)
    if unknown:
        return f"{text}. {did_you_mean(unknown[1], options)}"
    if key:
        return f"{text}. {did_you_mean(key[1], [option.removeprefix('--') for option in options])}"
    return f"{text}. See --help."
