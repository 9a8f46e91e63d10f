"""Weights by name, from a file, a checkpoint of a run, or an MLflow server."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gnomon.errors import CheckpointError, did_you_mean
from gnomon.train import checkpoint_files as files

Weights = dict[str, Tensor]
Kind = Literal["model", "ema"]
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_EXPORTED = ".pt2"
_NESTED = ("state_dict", "model_state_dict", "model")
"""Where training programs keep the weights in a file that holds more."""
_MLFLOW_SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")
_INSTEAD = (
    "Save its state_dict with safetensors or torch.save instead; or, if you trust whoever made it, load it in Python "
    "with gnomon.train.model_loader.load_model(..., trust_pickle=True)."
)


def read_weights(
    source: str | Path, *, weights: Kind = "model", trust_pickle: bool = False, tracking_uri: str | None = None
) -> Weights | nn.Module:
    """Return the weights in `source`, or the whole model that a trusted pickle holds.

    `source` is a safetensors file, what torch.save made of a state dict, a folder with such files, a checkpoint of
    gnomon or its run directory (the newest checkpoint), or an MLflow URI such as models:/name/1 or runs:/id/path.
    `weights="ema"` takes the averaged ones of a checkpoint. `trust_pickle` unpickles whole models: that runs whatever
    code the file contains, with your rights. Raises CheckpointError when nothing can be read.
    """
    if weights not in ("model", "ema"):
        raise CheckpointError(f"weights='{weights}' is unknown. {did_you_mean(weights, ('model', 'ema'))}")
    if str(source).startswith(_MLFLOW_SCHEMES):
        with tempfile.TemporaryDirectory() as folder:
            return _read_path(_download(str(source), folder, tracking_uri), weights, trust_pickle, str(source))
    return _read_path(Path(source).expanduser(), weights, trust_pickle, str(source))


def _read_path(path: Path, weights: Kind, trust_pickle: bool, source: str) -> Weights | nn.Module:
    if not path.exists():
        raise CheckpointError(
            f"'{source}' does not exist. Give a file of weights, a checkpoint folder or an MLflow URI."
        )
    found = _find(path, source) if path.is_dir() else [path]
    if (found[0] / files.STATE_FILE).is_file():
        return _read_checkpoint(found[0], weights)
    if weights == "ema":
        raise CheckpointError(f"weights=ema, but '{source}' is not a checkpoint of gnomon, which alone has averages.")
    merged: Weights = {}
    for file in found:
        read = _reader(file, source)(file, trust_pickle)
        if isinstance(read, nn.Module):
            return read
        merged |= read
    return merged


def _reader(path: Path, source: str) -> Callable[[Path, bool], Weights | nn.Module]:
    if path.suffix == ".safetensors":
        return lambda file, _: _read_safetensors(file)
    if path.suffix == _EXPORTED:
        return _read_exported
    if path.suffix in PICKLED:
        return _read_pickled
    endings = ", ".join((".safetensors", *PICKLED, _EXPORTED))
    raise CheckpointError(f"'{source}' has the ending '{path.suffix}'; weights are read from {endings} and folders.")


def _find(folder: Path, source: str) -> list[Path]:
    """Return the file or files of weights in a folder, or the checkpoint of gnomon that it is or holds."""
    if (folder / files.STATE_FILE).is_file():
        return [folder]
    for place in (folder, folder / "checkpoints"):
        if checkpoints := files.list_checkpoints(place):
            return checkpoints[:1]
    for place in (folder, folder / "data"):  # MLflow keeps the files of a model in data/
        if shards := sorted(place.glob("*.safetensors")):
            return shards
        for name in ("state_dict.pth", "model.pth", "model.pt2", "pytorch_model.bin"):
            if (place / name).is_file():
                return [place / name]
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"'{source}' holds no weights that gnomon knows; it holds {present}. "
        "Give a checkpoint folder (step-000100), a run directory, or a folder with *.safetensors."
    )


def _read_checkpoint(folder: Path, weights: Kind) -> Weights:
    from gnomon.train.tensor_store import CheckpointException, read_tensors

    files.read_state(folder)  # refuses files that are not as they were written
    try:
        tensors = read_tensors(folder, "model.")
        averages = read_tensors(folder, "ema.") if weights == "ema" else {}
    except (CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"'{folder}' cannot be read: {_first_line(error)}. Copy it again.") from None
    if weights == "ema" and not averages:
        raise CheckpointError(
            f"weights=ema, but '{folder}' has no averages. Train with ema_decay, or set weights=model."
        )
    return {**tensors, **averages}  # what is not trained, such as running means, has no average


def _read_safetensors(path: Path) -> Weights:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"'{path}' needs the library safetensors. Install it: pip install safetensors.") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is damaged or not a safetensors file: {error}. Copy it again.") from None


def _read_pickled(path: Path, trust_pickle: bool) -> Weights | nn.Module:
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError:
        if trust_pickle:
            raise CheckpointError(f"'{path}' is damaged or not a file of torch.save. Copy it again.") from None
        raise CheckpointError(
            f"'{path}' holds more than tensors, such as a whole model, or is no file of torch.save: unpickling it "
            f"would run the code in it with your rights. {_INSTEAD}"
        ) from None
    except Exception as error:  # a damaged pickle fails in any way
        raise CheckpointError(f"'{path}' cannot be read: {_first_line(error)}. Copy it again.") from None
    return content if isinstance(content, nn.Module) else _select(content, path)


def _read_exported(path: Path, trust_pickle: bool) -> Weights | nn.Module:
    if not trust_pickle:
        raise CheckpointError(
            f"'{path}' is an exported program, which PyTorch reads with pickle: that can run code with your rights. "
            f"{_INSTEAD}"
        )
    try:
        return torch.export.load(path).module()
    except Exception as error:  # PyTorch documents no errors of its own
        raise CheckpointError(f"'{path}' cannot be read: {_first_line(error)}. Copy it again.") from None


def _select(content: Any, path: Path) -> Weights:
    """Return the state dict in what a file holds, at its top or under one of the usual keys."""
    for candidate in (content, *(content.get(key) for key in _NESTED if isinstance(content, Mapping))):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    found = f"a {type(content).__name__}" + (
        f" with {', '.join(map(str, content))}" if isinstance(content, Mapping) else ""
    )
    raise CheckpointError(f"'{path}' holds {found}, not a state dict. Save model.state_dict() with torch.save.")


def _download(uri: str, folder: str, tracking_uri: str | None) -> Path:
    try:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise CheckpointError(f"'{uri}' needs the library mlflow. Install it: pip install 'gnomon[track]'.") from None
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise CheckpointError(
            f"'{uri}' cannot be fetched from MLflow: {_first_line(error)} "
            "Check the name and version, and tracking_uri or MLFLOW_TRACKING_URI."
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
