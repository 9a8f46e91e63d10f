"""Datasets as steps of a pipeline."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
import zarr

from gnomon.config.instantiate import instantiate
from gnomon.data.getters import PARTS, DigitsGetter, HDF5Getter
from gnomon.data.resumable import create_loader
from gnomon.errors import DataError


def test_a_pipeline_in_yaml_gets_and_splits_the_digits():
    pipeline = instantiate(
        {
            "_target_": "gnomon.pipeline.Pipeline",
            "steps": {
                "get": {"_target_": "gnomon.data.getters.DigitsGetter", "parts": "train", "size": 28},
                "split": {"_target_": "gnomon.component.RandomSplitter", "train": 0.9, "validation": 0.1},
            },
        }
    )
    train, validation, test = pipeline.execute()
    assert (len(train), len(validation), test) == (1294, 144, None)
    images, labels = next(iter(create_loader(train, global_batch=8, micro_batch=8)))
    assert (images.shape, labels.shape) == ((8, 1, 28, 28), (8,))


def test_both_parts_come_in_the_order_that_was_asked_for():
    test, train = DigitsGetter(parts=["test", "train"]).execute()
    assert (len(test), len(train)) == (359, 1438)
    with pytest.raises(DataError, match=r"parts names 'tset'\. Did you mean 'test'"):
        DigitsGetter(parts=["tset"])
    with pytest.raises(DataError, match="parts is empty"):
        DigitsGetter(parts=[])
    assert PARTS == ("train", "test")


def write_numbers(path, start):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(start, start + 5)


def test_a_pattern_joins_files_and_every_kind_can_be_named_in_yaml(tmp_path):
    write_numbers(tmp_path / "b.h5", 5)
    write_numbers(tmp_path / "a.h5", 0)
    joined = HDF5Getter(str(tmp_path / "*.h5"), ["x"], as_tuple=True).execute()
    assert [joined[index][0].item() for index in range(10)] == list(range(10))
    batches = create_loader(joined, global_batch=5, micro_batch=5, num_workers=1, shuffle=False)
    assert torch.cat([batch[0] for batch in batches]).tolist() == list(range(10))
    group = zarr.open(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("x", data=np.arange(4))
    node = {"_target_": "gnomon.data.getters.ZarrGetter", "path": str(tmp_path / "a.zarr"), "keys": {"y": "x"}}
    assert instantiate(node).execute()[3] == {"y": torch.tensor(3)}
    for name, settings in (
        ("MNISTGetter", {"root": "nowhere"}),
        ("ParquetGetter", {"path": "nowhere", "columns": ["x"]}),
        ("WebDatasetGetter", {"path": "nowhere", "keys": ["png"]}),
    ):
        getter = instantiate({"_target_": f"gnomon.data.getters.{name}", **settings})
        with pytest.raises(DataError, match="'nowhere'"):
            getter.execute()


def test_naming_a_getter_does_not_import_torch():
    script = (
        "import sys; from gnomon.data.getters import DigitsGetter; DigitsGetter(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
