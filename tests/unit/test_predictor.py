"""Predictions of one rank: what is made of the outputs, ids, files, and what is refused."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from gnomon.data.images import Digits
from gnomon.errors import ConfigError, DataError
from gnomon.train.model_loader import ModelLoader
from gnomon.train.predictions import Predictions
from gnomon.train.predictor import DistributedPredictor
from gnomon.train.supervised import SupervisedTrainer

INPUTS = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))


class Named(Dataset):
    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, index):
        return {"x": INPUTS[index], "y": torch.tensor(index)}

    def sample_ids(self, indices):
        return [f"s{index}" for index in indices]


def network(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, outputs))


def expected(model: nn.Module) -> torch.Tensor:
    was = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(INPUTS)
    model.train(was)
    return outputs


def predict(dataset=INPUTS, model=None, **settings) -> Predictions:
    return DistributedPredictor(model or network(), device="cpu", micro_batch=5, **settings).execute(dataset)


def test_every_kind_makes_its_predictions_of_the_outputs():
    model = network()
    outputs = expected(model)
    raw = predict(model=model).values
    torch.testing.assert_close(raw, outputs)
    assert torch.equal(predict(model=model, kind="multiclass").values, outputs.argmax(1))
    for threshold in (0.3, 0.6):
        found = predict(model=model, kind="multilabel", threshold=threshold).values
        assert torch.equal(found, outputs.sigmoid() >= threshold)
    single = network(1)
    torch.testing.assert_close(predict(model=single, kind="regression").values, expected(single)[:, 0])
    assert predict(model=model, precision="bf16").values.dtype == torch.bfloat16


def test_a_pair_of_arrays_is_one_sample_per_row_as_for_the_trainers():
    model = network()
    found = predict((INPUTS.double().numpy(), np.zeros(len(INPUTS))), model)
    torch.testing.assert_close(found.values, expected(model))
    assert len(found.values) == len(INPUTS)


def test_the_model_is_evaluated_without_gradients_and_left_as_it_was():
    model = network()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = predict(model=model).values
    assert not values.requires_grad
    assert not values.is_inference()
    assert [part.training for part in model] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_inputs_come_from_tuples_dicts_and_subsets_and_ids_are_kept(tmp_path):
    model = network()
    outputs = expected(model)
    pairs = [(x, torch.tensor(0)) for x in INPUTS]
    torch.testing.assert_close(predict(pairs, model).values, outputs)
    subset = Subset(Named(), [7, 3, 20])
    output = tmp_path / "new" / "predictions.parquet"
    found = predict(subset, model, input_key="x", num_workers=1, output=str(output))
    torch.testing.assert_close(found.values, outputs[[7, 3, 20]])
    assert found.ids == ["s7", "s3", "s20"]
    assert torch.equal(found.by_id()["s3"], found.values[1])
    frame = pl.read_parquet(output)
    assert frame["id"].to_list() == found.ids
    np.testing.assert_array_equal(frame["prediction"].to_numpy(), found.values.numpy())
    assert [path.name for path in output.parent.iterdir()] == ["predictions.parquet"]


def test_predictions_without_ids_are_numbered_and_equal_ids_are_refused(tmp_path):
    predictions = Predictions(torch.tensor([4, 5]))
    assert predictions.by_id() == {0: torch.tensor(4), 1: torch.tensor(5)}
    assert [value.item() for value in predictions] == [4, 5]
    frame = pl.read_parquet(predictions.write_parquet(tmp_path / "a.parquet"))
    assert frame.rows() == [(0, 4), (1, 5)]
    assert predictions.write(tmp_path / "a.csv").read_text() == "id,prediction\n0,4\n1,5\n"
    several = Predictions(torch.tensor([[0.5, 1.0], [2.0, 3.0]]), ["a", "b"])
    assert several.write(tmp_path / "a.CSV").read_text() == "id,prediction_0,prediction_1\na,0.5,1.0\nb,2.0,3.0\n"
    with pytest.raises(DataError, match="only 1 have an id of their own"):
        Predictions(torch.zeros(2), ["a", "a"]).by_id()


class Strange(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return self.outputs


@pytest.mark.parametrize(
    ("dataset", "settings", "error", "message"),
    [
        (INPUTS, {"kind": "multi"}, ConfigError, "kind='multi' is unknown. Names that contain it"),
        (INPUTS, {"threshold": 1.5}, ConfigError, "threshold=1.5; it is a probability"),
        (INPUTS, {"strategy": "fsdp"}, ConfigError, "prediction copies the model to every rank"),
        (INPUTS, {"precision": "fp8"}, ConfigError, "precision='fp8' is unknown"),
        (INPUTS, {"input_key": "x"}, ConfigError, "a sample is no dict"),
        (INPUTS, {"micro_batch": 0}, DataError, "micro_batch=0"),
        (INPUTS, {"model": Strange({})}, DataError, "returned a dict; a tensor is needed"),
        (INPUTS, {"model": Strange(torch.zeros(()))}, DataError, "one row per sample"),
        (INPUTS, {"model": Strange(torch.zeros(5)), "kind": "multiclass"}, DataError, "one output per class"),
        (INPUTS, {"model": dict}, ConfigError, "model made a dict"),
        (INPUTS, {"output": "a.json"}, ConfigError, r"output='a.json' ends neither in .parquet nor in .csv"),
        (INPUTS, {"output": "/dev/null/a.parquet"}, ConfigError, "cannot be written: File exists"),
        (Named(), {}, ConfigError, "A sample is a dict with x, y. Set input_key"),
        (Named(), {"input_key": "z"}, ConfigError, "input_key='z' is not in the samples. Valid names: x, y"),
        ([], {}, DataError, "no samples at all"),
    ],
)
def test_what_cannot_be_predicted_is_refused(dataset, settings, error, message):
    settings = {"model": network(), "micro_batch": 5, **settings}
    with pytest.raises(error, match=message):
        DistributedPredictor(device="cpu", **settings).execute(dataset)


def test_a_predictor_without_a_model_says_so_and_takes_one_as_input():
    predictor = DistributedPredictor(device="cpu", micro_batch=5)
    with pytest.raises(ConfigError, match="There is no model"):
        predictor.execute(INPUTS)
    torch.testing.assert_close(predictor.execute(INPUTS, network()).values, expected(network()))


def test_a_model_trained_on_the_digits_predicts_from_its_run_directory_what_it_does_in_memory(tmp_path):
    train, test = Digits("train"), Digits("test")
    config = {
        "run_dir": str(tmp_path / "run"), "epochs": 8, "learning_rate": 3e-3, "device": "cpu",
        "progress": False, "batch": 64, "checkpoint_every": 1000,
    }  # fmt: skip
    settings = {"name": "mlp", "hidden": [64], "num_classes": 10}
    trained = SupervisedTrainer(config, settings).execute(train)[3]
    from gnomon.train.networks import create_network
    from gnomon.train.supervised_settings import read_model

    loader = ModelLoader(str(tmp_path / "run"), lambda: create_network(read_model(settings), (1, 8, 8)))
    stored = DistributedPredictor(loader, kind="multiclass", device="cpu").execute(test)
    assert torch.equal(stored.values, predict(test, trained, kind="multiclass").values)
    assert (stored.values == test.labels).float().mean() > 0.9
