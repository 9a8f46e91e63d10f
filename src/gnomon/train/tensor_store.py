"""Tensors in and out of PyTorch's distributed checkpoint format, without running anything that a file says.

The format keeps its table of contents as a pickle and stores what is not a tensor as pickles too. So only tensors are
written, and the table of contents is read by an unpickler that knows a few harmless classes and refuses all others.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from gnomon.errors import CheckpointError

__all__ = ["CheckpointException", "load_tensors", "read_tensors", "save_tensors", "stored_names"]

_METADATA_FILE = ".metadata"
_METADATA_CLASSES = {
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
}


def save_tensors(tensors: dict[str, Any], folder: Path, distributed: bool, group: ProcessGroup | None = None) -> None:
    """Write a nested mapping of tensors, each rank its share; raise CheckpointException on all ranks if one fails."""
    writer = FileSystemWriter(folder, sync_files=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a process group it warns each time that there is none
        save(tensors, storage_writer=writer, no_dist=not distributed, process_group=group)


def load_tensors(tensors: dict[str, Any], folder: Path, distributed: bool, group: ProcessGroup | None = None) -> None:
    """Fill the tensors of a nested mapping in place; raise CheckpointException on all ranks if one fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(tensors, storage_reader=_TensorReader(folder), no_dist=not distributed, process_group=group)


def stored_names(folder: Path) -> set[str]:
    """Return the dotted names of the stored tensors; raise CheckpointError for a file that holds anything else."""
    return set(_TensorReader(folder).read_metadata().state_dict_metadata)


def read_tensors(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Return the whole tensors whose dotted name starts with `prefix`, without it; needs no other rank.

    Raises CheckpointError and CheckpointException for a file that is damaged.
    """
    stored = _TensorReader(folder).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(item.size, dtype=item.properties.dtype)
        for name, item in stored.items()
        if name.startswith(prefix) and not isinstance(item, BytesStorageMetadata)
    }
    load_tensors(tensors, folder, distributed=False)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


class _TensorReader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / _METADATA_FILE
        try:
            with path.open("rb") as file:
                metadata = _MetadataUnpickler(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"'{path}' is damaged: {error}.") from None
        if not isinstance(metadata, Metadata):
            raise CheckpointError(
                f"'{path}' is damaged: it holds a {type(metadata).__name__}, not a table of contents."
            )
        for name, item in metadata.state_dict_metadata.items():
            if isinstance(item, BytesStorageMetadata):
                raise CheckpointError(f"'{path}' holds '{name}', which is not a tensor; reading it could run code.")
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a class of the table of contents; raise UnpicklingError for any other."""
        if module == dcp_metadata.__name__ and name in _METADATA_CLASSES:
            return getattr(dcp_metadata, name)
        if (module, name) == ("torch.distributed.checkpoint.filesystem", "_StorageInfo"):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        if (module, name) == ("torch.serialization", "_get_layout"):
            return super().find_class(module, name)
        if module in ("pathlib", "pathlib._local") and name in ("PosixPath", "WindowsPath"):
            return PurePosixPath if name == "PosixPath" else PureWindowsPath
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no checkpoint of gnomon needs")
