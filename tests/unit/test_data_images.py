"""MNIST-format files and the built-in digits."""

import gzip
import struct
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from gnomon.data.idx import DTYPES, read_idx
from gnomon.data.images import MNIST, Digits, IdxDataset, LabelledImages
from gnomon.data.resumable import create_loader
from gnomon.errors import DataError


def idx_bytes(array: np.ndarray) -> bytes:
    """Write IDX independently of the reader."""
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def mnist(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("t10k", 10)):
        arrays[part] = (
            generator.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            generator.integers(0, 10, count, dtype=np.uint8),
        )
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(arrays[part][0])))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(arrays[part][1]))
    return tmp_path, arrays


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]).flatmap(
        lambda kind: st_numpy.arrays(kind, st_numpy.array_shapes(max_dims=4, max_side=4))
    ),
    st.booleans(),
)
def test_every_type_and_shape_comes_back(tmp_path, array, compressed):
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_both_parts_of_mnist_are_read_and_scaled(mnist):
    root, arrays = mnist
    for split, part in (("train", "train"), ("test", "t10k")):
        dataset = MNIST(root, split)
        assert len(dataset) == len(arrays[part][0])
        image, label = dataset[3]
        assert (image.dtype, image.shape, label.dtype) == (torch.float32, (1, 28, 28), torch.int64)
        np.testing.assert_array_equal(image[0], arrays[part][0][3].astype(np.float32) / 255)
        assert label == arrays[part][1][3]


def test_the_folder_layout_of_torchvision_and_the_dotted_names_work(mnist, tmp_path):
    root, arrays = mnist
    raw = tmp_path / "other" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in list(root.glob("t10k-*")):
        path.rename(raw / path.name.replace("-idx", ".idx"))
    assert len(MNIST(tmp_path / "other", "test")) == len(arrays["t10k"][0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"shape \(30,\), which takes 30 bytes, but only 29 follow"),
        (lambda data: data + b"x", "which takes 30 bytes, but more follow"),
        (lambda data: data[:6], "cut off within its header of 8 bytes"),
        (lambda data: b"\0\0\x07\x01" + data[4:], "starts with the bytes '00 00 07 01'"),
        (lambda data: b"\0\1" + data[2:], "is not an IDX file"),
        (lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:], "only 30 follow"),
        (lambda data: b"\0\0\x08\x03" + b"\xff" * 12, "its header asks for"),
        (lambda data: b"", "starts with the bytes ''"),
        (lambda data: gzip.compress(data)[:-9], "cut off or damaged: Compressed file ended"),
        (lambda data: gzip.compress(data)[:12] + b"\xff\xff\xff" + gzip.compress(data)[15:], "cut off or damaged"),
        (lambda data: idx_bytes(np.zeros(30, dtype="i4")), "holds int32 of shape"),
        (lambda data: idx_bytes(np.zeros((30, 1), dtype="u1")), r"labels are uint8 \(samples\)"),
        (lambda data: idx_bytes(np.zeros(29, dtype="u1")), "has 30 images, but .* has 29 labels"),
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_it(mnist, damage, message):
    root, _ = mnist
    path = root / "train-labels-idx1-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        MNIST(root)
    assert path.name in str(caught.value)


def test_images_in_place_of_labels_and_missing_files_are_data_errors(mnist, tmp_path):
    root, _ = mnist
    images = root / "train-images-idx3-ubyte.gz"
    with pytest.raises(DataError, match="labels are uint8"):
        IdxDataset(images, images)
    with pytest.raises(DataError, match="images are uint8"):
        IdxDataset(root / "train-labels-idx1-ubyte", images)
    images.unlink()
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte .* it holds t10k-images.* downloads nothing"):
        MNIST(root)
    with pytest.raises(DataError, match="is not a folder"):
        MNIST(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"split='tests' is unknown. Did you mean 'test'"):
        MNIST(root, "tests")


def test_the_digits_are_split_by_class_without_overlap_and_always_alike():
    train, test = Digits("train", seed=1), Digits("test", seed=1)
    assert (len(train), len(test)) == (1438, 359)
    assert train.num_classes == test.num_classes == 10
    fractions = torch.bincount(test.labels) / (torch.bincount(train.labels) + torch.bincount(test.labels))
    assert ((fractions > 0.19) & (fractions < 0.21)).all()
    image, label = train[0]
    assert (image.dtype, image.shape, label.dtype) == (torch.float32, (1, 8, 8), torch.int64)
    assert sum(Digits("test", seed=1)[7][0].flatten().tolist()) == sum(test[7][0].flatten().tolist())
    assert not torch.equal(Digits("test", seed=2).labels, test.labels)
    together = torch.stack([train[i][0] for i in range(len(train))] + [test[i][0] for i in range(len(test))])
    from sklearn.datasets import load_digits

    assert (together.min(), together.max()) == (0.0, 1.0)
    assert together.sum().item() == pytest.approx(load_digits().images.sum() / 16)
    assert len(together) == 1797


def test_digits_of_28_pixels_fit_where_mnist_fits(mnist):
    small, large = Digits("test"), Digits("test", size=28)
    assert large[0][0].shape == MNIST(mnist[0])[0][0].shape == (1, 28, 28)
    assert large[0][0].mean() == pytest.approx(small[0][0].mean().item(), rel=0.05)
    assert MNIST(mnist[0], size=14)[0][0].shape == (1, 14, 14)
    images, labels = next(iter(create_loader(large, global_batch=4, micro_batch=4, shuffle=False)))
    assert (images.shape, labels.shape) == ((4, 1, 28, 28), (4,))
    torch.testing.assert_close(images[2], large[2][0], rtol=0, atol=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"Digits needs a library.*pip install 'gnomon\[data\]'"):
        Digits()


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros(3, int), {}, r"shape \(3, 2\)"),
        (np.zeros((3, 2, 2)), np.zeros(2, int), {}, "3 images come with labels"),
        (np.zeros((3, 2, 2)), np.zeros(3), {}, "labels are float64"),
        (np.zeros((3, 2, 2)), np.zeros(3, int), {"size": 0}, "size=0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, options, message):
    with pytest.raises(DataError, match=message):
        LabelledImages(images, labels, **options)


def test_a_test_fraction_outside_its_range_is_refused():
    with pytest.raises(DataError, match=r"test_fraction=1.5"):
        Digits(test_fraction=1.5)


def test_the_codes_of_types_are_those_of_the_format():
    assert sorted(DTYPES) == [0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E]
