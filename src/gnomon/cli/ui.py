"""`gnomon ui`: the user interfaces of MLflow and TensorBoard over local runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at local runs in MLflow or TensorBoard.", no_args_is_help=True)

Where = Annotated[str, typer.Option("--path", help="Run directory, folder of runs, database file or URI.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")]


@app.callback()
def _ui() -> None:
    pass


@app.command("mlflow")
def mlflow(path: Where = ".", host: Host = "127.0.0.1", port: Port = 5000) -> None:
    """Serve the MLflow interface of a store until Ctrl-C."""
    _serve("mlflow", ["server", "--backend-store-uri", find_store(path), "--host", host, "--port", str(port)])


@app.command("tensorboard")
def tensorboard(path: Where = ".", host: Host = "127.0.0.1", port: Port = 6006) -> None:
    """Serve the TensorBoard interface of all event files below a folder until Ctrl-C."""
    from gnomon.errors import ConfigError

    if not any(Path(path).rglob("events.out.tfevents.*")):
        raise ConfigError(
            f"There is no TensorBoard event file below '{path}'. Give a run directory or a folder of runs."
        )
    _serve("tensorboard.main", ["--logdir", path, "--host", host, "--port", str(port)])


def find_store(path: str) -> str:
    """Return the URI of the MLflow store at `path`; raise ConfigError when there is none, or several."""
    from gnomon.errors import ConfigError

    if "://" in path:
        return path
    place = Path(path)
    if place.is_file():
        return f"sqlite:///{place.resolve()}"
    found = [place / "mlruns.db"] if (place / "mlruns.db").is_file() else sorted(place.glob("*/mlruns.db"))
    if not found:
        raise ConfigError(
            f"There is no mlruns.db in '{path}' or the folders in it. Give a run directory, a file or a URI."
        )
    if len(found) > 1:
        raise ConfigError(
            f"There are {len(found)} stores in '{path}', and MLflow shows one: give the path of a run, such as "
            f"--path {found[0].parent}. Runs that share a store (tracking_uri) are shown together."
        )
    return f"sqlite:///{found[0].resolve()}"


def _serve(module: str, arguments: list[str]) -> None:
    import subprocess
    import sys
    from importlib.util import find_spec

    from gnomon.errors import ConfigError, GnomonError

    if find_spec(module.partition(".")[0]) is None:
        raise ConfigError(
            f"This needs {module.partition('.')[0]}, which is not installed: pip install 'gnomon[track]'."
        )
    done = subprocess.run([sys.executable, "-P", "-m", module, *arguments], check=False)
    if done.returncode not in (0, 130):
        raise GnomonError(f"{module.partition('.')[0]} ended with exit code {done.returncode}; its message is above.")
