"""Byte-level text: what is read, how it is split, and what is said when there is none."""

from pathlib import Path

import numpy as np
import pytest

from gnomon.data.loader import TextLoader
from gnomon.data.sampler import WindowSampler
from gnomon.data.text import ByteCorpus, TextData, count_windows
from gnomon.errors import DataError, SpecError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        path = tmp_path / f"{number % 3}" / f"file{number:02d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 10)
    (tmp_path / "ignored.bin").write_bytes(b"\xff" * 100)
    return tmp_path


def test_the_standard_library_is_there_without_what_was_installed_into_it():
    corpus = ByteCorpus.read(TextData(max_bytes=200_000))
    assert len(corpus.train) + len(corpus.validation) == 200_000
    assert b"site-packages" not in corpus.source.encode()
    assert corpus.train.dtype == np.uint8
    assert b"import" in corpus.train.tobytes()


def test_two_readings_are_equal(folder):
    data = TextData(root=str(folder), pattern="**/*.txt")
    first, second = ByteCorpus.read(data), ByteCorpus.read(data)
    np.testing.assert_array_equal(first.train, second.train)
    assert first.checksum == second.checksum


def test_files_come_in_order_of_path_and_every_tenth_is_for_validation(folder):
    corpus = ByteCorpus.read(TextData(root=str(folder), pattern="**/*.txt", validation_fraction=0.1))
    order = sorted(range(20), key=lambda number: (number % 3, number))
    assert corpus.num_files == 18
    assert sorted(set(corpus.validation.tolist())) == sorted([order[9], order[19]])
    assert list(dict.fromkeys(corpus.train.tolist())) == [n for n in order if n not in (order[9], order[19])]


def test_the_tail_of_a_single_file_is_for_validation(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(bytes(range(100)))
    corpus = ByteCorpus.read(TextData(root=str(path), validation_fraction=0.2))
    assert corpus.train.tolist() == list(range(80))
    assert corpus.validation.tolist() == list(range(80, 100))


def test_no_more_than_max_bytes_is_read(folder):
    corpus = ByteCorpus.read(TextData(root=str(folder), pattern="**/*.txt", max_bytes=15, validation_fraction=0.0))
    assert corpus.train.tolist() == [0] * 10 + [3] * 5
    assert len(corpus.validation) == 0


def test_another_text_has_another_checksum(folder):
    data = TextData(root=str(folder), pattern="**/*.txt")
    before = ByteCorpus.read(data).checksum
    (folder / "0" / "file00.txt").write_bytes(b"x" * 10)
    assert ByteCorpus.read(data).checksum != before


def test_no_text_is_a_data_error_that_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="neither a folder nor a file"):
        ByteCorpus.read(TextData(root=str(tmp_path / "missing")))
    with pytest.raises(DataError, match=r"No file in .* matches data.pattern='\*\*/\*\.py'"):
        ByteCorpus.read(TextData(root=str(tmp_path)))
    (tmp_path / "empty.py").touch()
    with pytest.raises(DataError, match="all empty"):
        ByteCorpus.read(TextData(root=str(tmp_path)))


def test_a_text_too_short_for_a_batch_is_a_data_error():
    with pytest.raises(DataError, match="100 bytes, which make 3 sequences of seq_len=32, but one batch takes 4"):
        count_windows(np.zeros(100, dtype=np.uint8), 32, 4, "training")


@pytest.mark.parametrize("pattern", ["/etc/*", "../*.py", ""])
def test_a_pattern_stays_below_the_root(pattern):
    with pytest.raises(SpecError, match="must be a glob below root"):
        TextData.from_mapping({"pattern": pattern})


def test_targets_are_the_tokens_one_position_later():
    tokens = np.arange(101, dtype=np.uint8)
    loader = TextLoader(tokens, WindowSampler(10, 4, 2, seed=1), seq_len=10)
    for _ in range(6):
        inputs, targets = next(loader)
        assert inputs.shape == targets.shape == (2, 10)
        assert (targets == inputs + 1).all()
        assert (inputs[:, 0] % 10 == 0).all()


def test_a_resumed_loader_goes_on_with_the_next_step():
    tokens = np.arange(200, dtype=np.uint8)
    first = TextLoader(tokens, WindowSampler(19, 4, 2, seed=1), seq_len=10)
    second = TextLoader(tokens, WindowSampler(19, 4, 2, seed=1), seq_len=10)
    for _ in range(2 * first.sampler.accumulation):
        next(first)
    second.load_state_dict(first.state_dict())
    for _ in range(12):
        assert (next(first)[0] == next(second)[0]).all()
