"""Stored weights into a module: every source, strictly, and no pickle unless it is trusted."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from gnomon.config.instantiate import instantiate
from gnomon.errors import CheckpointError
from gnomon.train import checkpoint_files as files
from gnomon.train.model_loader import ModelLoader, load_model
from gnomon.train.tensor_store import save_tensors


def make(outputs: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, outputs))


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


TRAINED = make(seed=1)
WEIGHTS = TRAINED.state_dict()


def same(module: nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    found = module.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def write_checkpoint(
    folder: Path, step: int, weights: dict[str, torch.Tensor], **more: dict[str, torch.Tensor]
) -> Path:
    final = files.checkpoint_path(folder, step)
    temporary = files.temporary_path(final)
    temporary.mkdir(parents=True)
    save_tensors({"model": weights, "optimizer": {"x": torch.ones(2)}, **more}, temporary, distributed=False)
    listing = {path.name: files.fingerprint(path) for path in temporary.iterdir()}
    files.publish(temporary, final, {"step": step, "files": listing})
    return final


@pytest.fixture
def sources(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    torch.save(WEIGHTS, tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": WEIGHTS}, tmp_path / "lightning.ckpt")
    torch.save({"model": {f"module.{name}": value for name, value in WEIGHTS.items()}}, tmp_path / "ddp.pth")
    torch.save({f"_orig_mod.module.{name}": value for name, value in WEIGHTS.items()}, tmp_path / "compiled.bin")
    shards = tmp_path / "shards"
    shards.mkdir()
    names = list(WEIGHTS)
    save_file({name: WEIGHTS[name] for name in names[:3]}, shards / "model-1.safetensors")
    save_file({name: WEIGHTS[name] for name in names[3:]}, shards / "model-2.safetensors")
    write_checkpoint(tmp_path / "run" / "checkpoints", 10, make(seed=7).state_dict())
    write_checkpoint(tmp_path / "run" / "checkpoints", 20, WEIGHTS)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "a.safetensors",
        "a.pt",
        "lightning.ckpt",
        "ddp.pth",
        "compiled.bin",
        "shards",
        "run",
        "run/checkpoints",
        "run/checkpoints/step-000020",
    ],
)
def test_every_source_gives_the_same_model(sources, name):
    module = make()
    assert load_model(sources / name, module) is module
    assert same(module, WEIGHTS)


def test_the_prefixes_of_wrappers_make_no_difference_on_either_side(sources):
    wrapped = nn.ModuleDict({"module": make()})
    load_model(sources / "a.pt", wrapped)
    assert same(wrapped.module, WEIGHTS)
    compiled = nn.ModuleDict({"_orig_mod": make()})
    load_model(sources / "ddp.pth", compiled)
    assert same(compiled["_orig_mod"], WEIGHTS)


def test_averaged_weights_take_what_has_no_average_from_the_model(tmp_path):
    ema = {name: torch.full_like(value, 0.5) for name, value in TRAINED.named_parameters()}
    path = write_checkpoint(tmp_path, 1, WEIGHTS, ema=ema)
    module = load_model(path, make(), weights="ema")
    assert (module[0].weight == 0.5).all()
    assert torch.equal(module[1].running_var, TRAINED[1].running_var)
    with pytest.raises(CheckpointError, match=r"has no averages\. Train with ema_decay"):
        load_model(write_checkpoint(tmp_path, 2, WEIGHTS), make(), weights="ema")
    torch.save(WEIGHTS, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of gnomon"):
        load_model(tmp_path / "a.pt", make(), weights="ema")


def test_weights_used_twice_are_stored_once(tmp_path):
    trained, module = Tied(1), Tied(2)
    save_model(trained, tmp_path / "a.safetensors")
    load_model(tmp_path / "a.safetensors", module)
    assert same(module, trained.state_dict())


def test_what_does_not_fit_is_listed_and_leaves_the_module_as_it_was(tmp_path):
    weights = {**WEIGHTS, "3.weight": torch.ones(1)}
    del weights["0.bias"]
    save_file(weights, tmp_path / "a.safetensors")
    module = make(outputs=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "a.safetensors", module)
    message = str(caught.value)
    assert "do not fit Sequential: missing (1): 0.bias; not in the model (1): 3.weight; " in message
    assert "of another shape (2): 2.bias (3,) instead of (2,), 2.weight (3, 5) instead of (2, 5)" in message
    assert same(module, before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"\xff" * 20, "damaged or not a safetensors"),
        ("a.pt", b"hello", "is no file of torch.save|cannot be read"),
        ("a.pt", b"", "cannot be read"),
        ("a.onnx", b"", "has the ending '.onnx'"),
        ("a.pt2", b"", "exported program, which PyTorch reads with pickle"),
    ],
)
def test_files_that_hold_no_weights_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / name, make())


def test_places_without_weights_and_a_damaged_checkpoint_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "nowhere", make())
    (tmp_path / "README").touch()
    with pytest.raises(CheckpointError, match="holds no weights that gnomon knows; it holds README"):
        load_model(tmp_path, make())
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="holds a dict with epoch, not a state dict"):
        load_model(tmp_path / "a.pt", make())
    torch.save(WEIGHTS, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="holds weights but no model"):
        load_model(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"weights='emma' is unknown\. Did you mean 'ema'"):
        load_model(tmp_path / "b.pt", make(), weights="emma")
    path = write_checkpoint(tmp_path, 1, WEIGHTS)
    shard = next(path.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(path, make())


def test_a_whole_model_is_unpickled_only_when_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(TRAINED, "model.pt")
    with pytest.raises(CheckpointError, match=r"run the code in it with your rights.*trust_pickle=True"):
        load_model("model.pt", make())
    assert same(load_model("model.pt", trust_pickle=True), WEIGHTS)
    assert same(load_model("model.pt", make(), trust_pickle=True), WEIGHTS)
    Path("bomb.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state_dict": WEIGHTS, "extra": Bomb()}, "bomb.ckpt")
    for bomb in ("bomb.pt", "bomb.ckpt"):
        with pytest.raises(CheckpointError):
            load_model(bomb, make())
    assert not Path("exploded").exists()


def test_a_loader_in_yaml_makes_the_model_and_loads_it(sources):
    node = {
        "_target_": "gnomon.train.model_loader.ModelLoader",
        "source": str(sources / "a.pt"),
        "model": {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 5, "_partial_": True},
    }
    torch.save(TRAINED[0].state_dict(), sources / "a.pt")
    loader = instantiate(node)
    assert same(loader(), TRAINED[0].state_dict())
    assert loader.execute() is not loader.execute()


@pytest.mark.integration
def test_mlflow_uris_of_runs_and_registered_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlflow = pytest.importorskip("mlflow.pytorch").mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as run:
            mlflow.pytorch.log_state_dict(WEIGHTS, artifact_path="weights")
            mlflow.pytorch.log_model(
                TRAINED,
                name="whole",
                registered_model_name="net",
                serialization_format="pickle",
                pip_requirements=["torch"],  # MLflow would start a process to find them out
            )
        mlflow.set_tracking_uri(None)
        assert same(load_model(f"runs:/{run.info.run_id}/weights", make(), tracking_uri=uri), WEIGHTS)
        with pytest.raises(CheckpointError, match=r"run the code in it.*trust_pickle=True"):
            load_model("models:/net/1", make(), tracking_uri=uri)
        assert same(load_model("models:/net/1", make(), trust_pickle=True, tracking_uri=uri), WEIGHTS)
        assert same(ModelLoader(f"runs:/{run.info.run_id}/weights", make(), tracking_uri=uri)(), WEIGHTS)
        with pytest.raises(CheckpointError, match="'models:/net/9' cannot be fetched from MLflow"):
            load_model("models:/net/9", make(), tracking_uri=uri)
    finally:
        mlflow.set_tracking_uri(None)
