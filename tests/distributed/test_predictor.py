"""Predictions on real gloo ranks: all of them, in order, the same on every rank and for any number of ranks."""

from pathlib import Path

import polars as pl
import pytest
import torch

from gnomon.data.images import Digits
from gnomon.errors import DataError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.train.model_loader import ModelLoader
from gnomon.train.networks import create_network
from gnomon.train.predictor import DistributedPredictor
from gnomon.train.supervised_settings import MLPSettings

pytestmark = [pytest.mark.torch_dist, pytest.mark.usefixtures("uncovered_children")]

LENGTH = 23  # divides by no number of ranks or micro-batches here
WORKER = """
import os, sys
import torch
from torch import nn
from torch.utils.data import Dataset

from gnomon.errors import DataError
from gnomon.train.predictor import DistributedPredictor

rank, folder, role = int(os.environ.get("RANK", 0)), sys.argv[1], sys.argv[2]


class Data(Dataset):
    def __init__(self, length=23):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if role == "damaged" and index == 5:  # read by rank 1 alone
            raise DataError("Sample 5 is damaged.")
        generator = torch.Generator().manual_seed(index)
        return torch.randn(4, generator=generator), torch.tensor(index)

    def sample_ids(self, indices):
        return [f"s{index}" for index in indices]


torch.manual_seed(rank)  # other weights on every rank, until rank 0's are copied
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
found = {}
for kind in ("raw", "multiclass", "multilabel"):  # the ranks meet and part each time
    output = f"{folder}/{kind}.parquet" if kind == "multiclass" else None
    predictor = DistributedPredictor(model, kind=kind, device="cpu", micro_batch=4, output=output)
    predictions = predictor.execute(Data(23 + (rank if role == "lengths" else 0)))
    found[kind], found["ids"] = predictions.values, predictions.ids
torch.save(found, f"{folder}/rank-{rank}.pt")
"""


TRAINER = """
import os, sys
import torch

from gnomon.data.images import Digits
from gnomon.train.predictor import DistributedPredictor
from gnomon.train.supervised import SupervisedTrainer

rank, folder = int(os.environ.get("RANK", 0)), sys.argv[1]
config = {"run_dir": f"{folder}/run", "epochs": 2, "learning_rate": 3e-3, "device": "cpu", "progress": False,
          "batch": 64, "checkpoint_every": 1000}
trainer = SupervisedTrainer(config, {"name": "mlp", "hidden": [32], "num_classes": 10})
trained = trainer.execute(Digits("train"))[3]
values = DistributedPredictor(trained, device="cpu").execute(Digits("test")).values
torch.save({"raw": values}, f"{folder}/rank-{rank}.pt")
"""


def run(
    folder: Path, ranks: int, monkeypatch: pytest.MonkeyPatch, role: str = "predict", worker: str = WORKER
) -> list[dict]:
    folder.mkdir()
    (folder / "predict_worker.py").write_text(worker)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    arguments = (str(folder), role)
    run_ranks(
        RankJob(module="predict_worker", arguments=arguments, log_dir=folder / "logs", ranks=ranks, threads_per_rank=1)
    )
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


def test_one_two_and_three_ranks_predict_the_same_in_order(tmp_path, monkeypatch):
    (alone,) = run(tmp_path / "1", 1, monkeypatch)
    assert alone["ids"] == [f"s{index}" for index in range(LENGTH)]
    assert alone["raw"].shape == (LENGTH, 3)
    assert torch.equal(alone["multiclass"], alone["raw"].argmax(1))
    assert torch.equal(alone["multilabel"], alone["raw"].sigmoid() >= 0.5)
    assert len(alone["raw"].unique(dim=0)) == LENGTH
    for ranks in (2, 3):
        for found in run(tmp_path / str(ranks), ranks, monkeypatch):
            assert found["ids"] == alone["ids"]
            for kind in ("raw", "multiclass", "multilabel"):
                assert torch.equal(found[kind], alone[kind]), (ranks, kind)
        frame = pl.read_parquet(tmp_path / str(ranks) / "multiclass.parquet")
        assert frame["prediction"].to_list() == alone["multiclass"].tolist()
        assert frame["id"].to_list() == alone["ids"]


def test_an_error_of_one_rank_is_raised_on_all_and_none_hangs(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"Sample 5 is damaged\."):
        run(tmp_path / "damaged", 3, monkeypatch, "damaged")
    with pytest.raises(DataError, match=r"datasets of different lengths: \[23, 24\]"):
        run(tmp_path / "lengths", 2, monkeypatch, "lengths")


def test_ranks_that_have_trained_together_predict_together(tmp_path, monkeypatch):
    results = run(tmp_path / "run", 2, monkeypatch, worker=TRAINER)
    assert torch.equal(results[0]["raw"], results[1]["raw"])
    network = create_network(MLPSettings(hidden=(32,), num_outputs=10), (1, 8, 8))
    loader = ModelLoader(str(tmp_path / "run" / "run"), network)
    alone = DistributedPredictor(loader, device="cpu").execute(Digits("test")).values
    torch.testing.assert_close(results[0]["raw"], alone)
    assert (alone.argmax(1) == Digits("test").labels).float().mean() > 0.5
