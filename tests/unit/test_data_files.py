"""HDF5, Zarr, Parquet and WebDataset files: read by workers, named when damaged, never run."""

import io
import json
import pickle
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import torch
import zarr
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

from gnomon.data.ids import sample_ids
from gnomon.data.parquet import ParquetDataset
from gnomon.data.resumable import create_loader
from gnomon.data.stored_arrays import HDF5Dataset, ZarrDataset
from gnomon.data.webdataset import WebDataset
from gnomon.errors import DataError

COUNT = 12
ENERGY = np.linspace(0.0, 1.0, COUNT, dtype=np.float32)
SHOWER = np.arange(COUNT * 6, dtype=np.float32).reshape(COUNT, 2, 3)
NAMES = [f"event-{index}" for index in range(COUNT)]


def write_hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["data/shower"] = SHOWER.astype(">f4")
        file.create_dataset("energy", data=ENERGY, chunks=(5,), compression="gzip")
        file["name"] = NAMES
        file["short"] = ENERGY[:3]
        file["scalar"] = 1.0
    return path


def write_zarr(path: Path) -> Path:
    group = zarr.open(str(path), mode="w", zarr_format=2)
    group.create_array("data/shower", data=SHOWER, chunks=(5, 2, 3))
    group.create_array("energy", data=ENERGY)
    group.create_array("name", data=np.array(NAMES))
    group.create_array("short", data=ENERGY[:3])
    group.create_array("scalar", data=np.float32(1.0))
    return path


WRITERS = {HDF5Dataset: (write_hdf5, "events.h5"), ZarrDataset: (write_zarr, "events.zarr")}
STORED = pytest.mark.parametrize("kind", WRITERS)


def stored(kind, folder: Path) -> Path:
    write, name = WRITERS[kind]
    return write(folder / name)


@STORED
def test_stored_arrays_give_samples_as_dict_or_tuple(kind, tmp_path):
    path = stored(kind, tmp_path)
    dataset = kind(path, {"x": "data/shower", "y": "energy"}, ids="name")
    assert len(dataset) == COUNT
    sample = dataset[-1]
    assert list(sample) == ["x", "y"]
    np.testing.assert_array_equal(sample["x"], SHOWER[-1])
    assert sample["y"].dtype == torch.float32
    assert sample["y"] == ENERGY[-1]
    shower, energy = kind(path, ["data/shower", "energy"], as_tuple=True)[3]
    assert (shower.shape, energy.item()) == ((2, 3), ENERGY[3])
    assert dataset.sample_ids([2, 0]) == ["event-2", "event-0"]
    assert kind(path, ["energy"]).sample_ids([0]) is None
    with pytest.raises(IndexError):
        dataset[COUNT]


@STORED
def test_workers_open_the_file_themselves_and_read_the_same(kind, tmp_path):
    dataset = kind(stored(kind, tmp_path), {"x": "data/shower", "y": "energy"})
    dataset[0]  # the main process has it open when the workers are forked
    options = {"global_batch": 4, "micro_batch": 4, "seed": 1}
    expected = list(create_loader(dataset, **options))
    for batch, same in zip(create_loader(dataset, num_workers=2, **options), expected, strict=True):
        torch.testing.assert_close(batch, same, rtol=0, atol=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([batch["y"] for batch in expected])), ENERGY)
    again = pickle.loads(pickle.dumps(dataset))
    assert again[5]["y"] == ENERGY[5]


@STORED
@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        (["enrgy"], {}, "has no 'enrgy'. Did you mean 'energy'"),
        (["energy"], {"ids": "names"}, "has no 'names'. Did you mean 'name'"),
        (["energy", "short"], {}, "'energy' has 12, 'short' has 3"),
        (["name"], {}, "which no tensor can hold"),
        (["scalar"], {}, "is a single value"),
        ("energy", {}, "keys is 'energy'; give a list"),
        (["energy", "energy"], {}, "names one key twice"),
        ([], {}, "give a list"),
    ],
)
def test_arrays_that_make_no_samples_are_refused(kind, keys, options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        kind(stored(kind, tmp_path), keys, **options)


@STORED
def test_files_that_are_something_else_are_data_errors(kind, tmp_path):
    with pytest.raises(DataError, match=r"does not exist\. Set path to a"):
        kind(tmp_path / "nowhere", ["energy"])
    path = stored(kind, tmp_path)
    with pytest.raises(DataError, match=rf"is a pattern \(1 match, first '.*{path.name}'\).*Getter takes patterns"):
        kind(tmp_path / f"{path.name[:-1]}?", ["energy"])
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="text' cannot be read as a"):
        kind(tmp_path / "text", ["energy"])


def test_a_truncated_hdf5_file_and_an_array_for_a_group_are_data_errors(tmp_path):
    path = write_hdf5(tmp_path / "events.h5")
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(DataError, match="truncated file"):
        HDF5Dataset(path, ["energy"])
    with pytest.raises(DataError, match="is one array"):
        ZarrDataset(write_zarr(tmp_path / "events.zarr") / "energy", ["energy"])


@pytest.mark.parametrize("where", ["compressor", "filters"])
@pytest.mark.parametrize("dtype", ["<f4", "|O"])
def test_a_zarr_array_of_pickles_is_never_read(where, dtype, tmp_path):
    path = write_zarr(tmp_path / "events.zarr")
    codec = {"id": "pickle"}
    changes = {"dtype": dtype, "fill_value": None, where: codec if where == "compressor" else [codec]}
    metadata = json.loads((path / "energy" / ".zarray").read_text())
    (path / "energy" / ".zarray").write_text(json.dumps({**metadata, **changes}))
    for keys, ids in ((["energy"], None), (["data/shower"], "energy")):
        with pytest.raises(DataError, match="cannot be read as a Zarr store: No Zarr data type found"):
            ZarrDataset(path, keys, ids=ids)


@pytest.mark.parametrize(
    ("module", "make", "name"),
    [
        ("h5py", lambda path: HDF5Dataset(path, ["a"]), "HDF5Dataset"),
        ("zarr", lambda path: ZarrDataset(path, ["a"]), "ZarrDataset"),
        ("webdataset", lambda path: WebDataset(path, ["a"]), "WebDataset"),
        ("torchdata.stateful_dataloader", lambda _: create_loader([1], global_batch=1, micro_batch=1), "A resumable"),
    ],
)
def test_a_missing_library_names_the_extra(module, make, name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"{name}.* needs a library.*pip install 'gnomon\[data\]'"):
        make(tmp_path)


def frame(**columns) -> pl.DataFrame:
    return pl.DataFrame({"energy": ENERGY, "shower": SHOWER.reshape(COUNT, 6), "name": NAMES, **columns})


def test_parquet_rows_become_samples_over_several_files(tmp_path):
    frame().head(5).write_parquet(tmp_path / "part-0.parquet")
    frame().tail(-5).write_parquet(tmp_path / "part-1.parquet")
    dataset = ParquetDataset(tmp_path / "part-*.parquet", {"x": "shower", "y": "energy"}, ids="name")
    assert len(dataset) == COUNT
    for index in (0, 7, -1):
        np.testing.assert_array_equal(dataset[index]["x"], SHOWER.reshape(COUNT, 6)[index])
        assert dataset[index]["y"] == ENERGY[index]
    assert dataset.sample_ids([6, 1]) == ["event-6", "event-1"]
    batches = create_loader(dataset, global_batch=6, micro_batch=6, num_workers=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([batch["y"] for batch in batches])), ENERGY)
    assert pickle.loads(pickle.dumps(dataset))[3]["y"] == ENERGY[3]
    (vector,) = ParquetDataset(tmp_path / "part-0.parquet", ["shower"], as_tuple=True)[1]
    assert vector.shape == (6,)


def test_parquet_lists_of_different_lengths_and_booleans_come_back(tmp_path):
    lists = [[1, 2, 3], [], [4]]
    pl.DataFrame({"tokens": lists, "flag": [True, False, True]}).write_parquet(tmp_path / "a.parquet")
    dataset = ParquetDataset(tmp_path / "a.parquet", ["tokens", "flag"])
    assert [dataset[index]["tokens"].tolist() for index in range(3)] == lists
    assert [dataset[index]["flag"].item() for index in range(3)] == [True, False, True]


def test_parquet_files_that_do_not_fit_are_data_errors(tmp_path):
    path = tmp_path / "a.parquet"
    frame(holes=[None, *range(COUNT - 1)], nested=[[1, None]] * COUNT).write_parquet(path)
    for columns, message in (
        (["enery"], "has no 'enery'. Did you mean 'energy'"),
        (["holes"], "Column 'holes' of .* has 1 missing"),
        (["nested"], "Column 'nested' of .* has 12 missing"),
        (["name"], "type String, which no tensor"),
    ):
        with pytest.raises(DataError, match=message):
            ParquetDataset(path, columns)
    with pytest.raises(DataError, match="as a pattern it matches no file"):
        ParquetDataset(tmp_path / "b-*.parquet", ["energy"])
    frame().with_columns(pl.col("energy").cast(pl.String)).write_parquet(tmp_path / "z.parquet")
    with pytest.raises(DataError, match="different types of columns"):
        ParquetDataset(tmp_path / "*.parquet", ["energy"])
    frame().head(0).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no rows"):
        ParquetDataset(tmp_path / "none.parquet", ["energy"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        ParquetDataset(path, ["energy"])


def png(value: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 255)).save(stream, kind)
    return stream.getvalue()


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def write_shard(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def event(index: int) -> dict[str, bytes]:
    return {
        f"s/{index:03}.png": png(index),
        f"s/{index:03}.cls": str(index % 3).encode(),
        f"s/{index:03}.wave.npy": npy(SHOWER[index]),
        f"s/{index:03}.json": json.dumps({"run": index}).encode(),
    }


@pytest.fixture
def shards(tmp_path):
    for shard in range(2):
        files = {}
        for index in range(shard * 6, shard * 6 + 6):
            files |= event(index)
        write_shard(tmp_path / f"train-{shard:03}.tar", files)
    return tmp_path


def test_webdataset_shards_have_random_access(shards):
    keys = {"image": "png", "label": "cls", "wave": "wave.npy", "about": "json"}
    dataset = WebDataset(f"{shards}/train-{{000..001}}.tar", keys)
    assert len(dataset) == COUNT
    sample = dataset[7]
    assert sample["image"].shape == (3, 3, 4)
    assert sample["image"][0, 0, 0].item() == pytest.approx(7 / 255)
    assert (sample["label"].item(), sample["label"].dtype, sample["about"]) == (1, torch.int64, {"run": 7})
    np.testing.assert_array_equal(sample["wave"], SHOWER[7])
    assert dataset.sample_ids([7, 0]) == ["s/007", "s/000"]
    gray = WebDataset(shards / "train-*.tar", ["png", "cls"], as_tuple=True, grayscale=True)
    assert gray[0][0].shape == (1, 3, 4)
    batches = create_loader(gray, global_batch=6, micro_batch=6, num_workers=1)
    labels = np.concatenate([labels for _, labels in batches])
    assert sorted(labels.tolist()) == sorted(index % 3 for index in range(COUNT))


def test_webdataset_shards_that_do_not_fit_are_data_errors(shards, tmp_path):
    first = shards / "train-000.tar"
    for path, keys, message in (
        (first, ["jpg"], "Sample 's/000' in .* has no 'jpg'. Did you mean|Valid names: cls, json, png, wave.npy"),
        (first, ["pkl"], "a pickle, and reading one could run code"),
        ("https://example.org/a.tar", ["png"], "is not a local file"),
        (shards / "b.tar", ["png"], "matches no file"),
        (write_shard(tmp_path / "z.tar", event(0), "w:gz"), ["png"], "not compressed"),
        (write_shard(tmp_path / "empty.tar", {"README": b""}), ["png"], "holds no samples"),
    ):
        with pytest.raises(DataError, match=message):
            WebDataset(path, keys)
    second = shards / "train-001.tar"
    second.write_bytes(second.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cut off within 's/006.cls'|cannot be read as a tar|has no 'cls'"):
        WebDataset(second, ["png", "cls"])


def test_no_sample_of_a_shard_that_was_cut_off_is_lost_in_silence(tmp_path):
    """Headers, contents and the two blocks of the end take 512 bytes each: the shard is whole with one of the end."""
    whole = write_shard(tmp_path / "a.tar", {"0.cls": b"0", "1.cls": b"1"}).read_bytes()
    shard = tmp_path / "cut.tar"
    for size in range(0, 2560, 256):
        shard.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut off (within|after) '[01].cls'|cannot be read as a tar file"):
            WebDataset(shard, ["cls"])
    shard.write_bytes(whole[:1024] + b"x" * 512 + whole[1536:])
    with pytest.raises(DataError, match=r"is damaged after '0.cls': the end mark of a tar file is not there"):
        WebDataset(shard, ["cls"])
    shard.write_bytes(whole[:2560])
    assert len(WebDataset(shard, ["cls"])) == 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "cannot be decoded: UnidentifiedImageError"),
        ("a.npy", npy(np.array([print]), allow_pickle=True), "cannot be decoded: ValueError: Object arrays"),
        ("a.cls", b"cat", "cannot be decoded: ValueError"),
        ("a.xyz", b"", "an ending that nothing decodes"),
        ("a.npy", npy(np.array(["text"])), "which no tensor can hold"),
    ],
)
def test_content_that_cannot_be_decoded_is_named_and_never_run(name, data, message, tmp_path):
    dataset = WebDataset(write_shard(tmp_path / "a.tar", {name: data}), [name.partition(".")[2]])
    with pytest.raises(DataError, match=message) as caught:
        dataset[0]
    assert "of sample 'a' in" in str(caught.value)


def test_parts_of_datasets_keep_the_ids(tmp_path):
    first = HDF5Dataset(write_hdf5(tmp_path / "a.h5"), ["energy"], ids="name")
    second = HDF5Dataset(write_hdf5(tmp_path / "b.h5"), ["energy"], ids="name")
    joined = ConcatDataset([Subset(first, [4, 5]), second])
    assert sample_ids(joined, [3, 0, 1, 2]) == ["event-1", "event-4", "event-5", "event-0"]
    assert sample_ids(ConcatDataset([first, HDF5Dataset(tmp_path / "a.h5", ["energy"])]), [0, 13]) is None
    assert sample_ids([1, 2], [0]) is None
