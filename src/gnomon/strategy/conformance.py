"""What every strategy must do, as a test class. A third party subclasses it and lets pytest collect it:

    class TestMyStrategy(StrategyConformance):
        strategy = "my_strategy"    # its name among the entry points `gnomon.strategies`
        options = {"level": 2}      # keyword arguments of the strategy
        ranks = 2

The ranks are real processes, started once per class; each test looks at what they found. They train a small
perceptron with AdamW, whose first moment after one step is a tenth of the clipped gradient: so the gradients can be
compared under every strategy, whatever it keeps them in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gnomon.runtime.devices import resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy
from gnomon.strategy.registry import create_strategy

TIMEOUT_S = 120
TOLERANCE = 1e-6  # relative to gradients of order one, in fp32
MAX_NORM = 0.05  # far below the norm of the gradients, so that clipping acts
BETA = 0.9
MICRO_BATCHES = 2
Flat = dict[str, list[float]]


class StrategyConformance:
    """Tests of all methods of a strategy over `ranks` processes on `device`."""

    strategy: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    ranks: ClassVar[int] = 2
    device: ClassVar[str] = "cpu"
    found: ClassVar[list[dict[str, Any]]]

    @classmethod
    def setup_class(cls) -> None:
        """Start the ranks and collect what they found."""
        cls.found = run_on_ranks(cls.strategy, cls.options, cls.ranks, cls.device)

    def test_reductions_are_exact_and_leave_their_input_alone(self) -> None:
        """Sum, mean, maximum and minimum over ranks of [rank, 0.5] have no rounding error for powers of two."""
        last = self.ranks - 1
        for found in self.found:
            assert found["input"] == [found["rank"], 0.5]
            assert found["sum"] == [sum(range(self.ranks)), 0.5 * self.ranks]
            assert found["mean"] == [last / 2, 0.5]
            assert found["max"] == [last, 0.5]
            assert found["min"] == [0, 0.5]

    def test_tensors_reach_the_ranks_that_they_are_for(self) -> None:
        """All-gather and gather keep the order of the ranks; gather and broadcast end or start at any rank."""
        everybody = [[rank, 0.5] for rank in range(self.ranks)]
        for found in self.found:
            assert found["all_gather"] == everybody
            assert found["gather_to_last"] == (everybody if found["rank"] == self.ranks - 1 else None)
            assert found["broadcast_from_last"] == everybody[-1]

    def test_objects_reach_every_rank(self) -> None:
        """Broadcast gives one rank's object, gather gives all in order of rank."""
        for found in self.found:
            assert found["object_from_first"] == {"from": 0}
            assert found["object_from_last"] == {"from": self.ranks - 1}
            assert found["objects"] == list(range(self.ranks))

    def test_prepare_gives_every_rank_the_same_weights(self) -> None:
        """Ranks that start from different weights and buffers continue with those of rank 0."""
        assert all(found["weights"] == self.found[0]["weights"] for found in self.found)

    def test_names_and_shapes_in_the_state_are_those_of_the_plain_model(self) -> None:
        """A checkpoint can be exchanged between strategies."""
        for found in self.found:
            assert found["shapes"] == found["expected_shapes"]

    def test_every_sample_is_read_once(self) -> None:
        """The shares of the batch are complete; ranks with the same share work on it together."""
        shares = {found["share"] for found in self.found}
        assert shares == set(range(self.found[0]["shares"]))

    def test_gradients_are_those_of_the_whole_batch(self) -> None:
        """Accumulated over micro-batches, averaged over ranks and clipped, they equal one batch in one process."""
        for found in self.found:
            for name, expected in found["expected_gradient"].items():
                error = f"{name} on rank {found['rank']}"
                assert found["gradient"][name] == pytest.approx(expected, rel=1e-5, abs=TOLERANCE * MAX_NORM), error

    def test_clip_returns_the_norm_over_all_ranks(self) -> None:
        """The norm is that of the whole gradient before it was scaled, a plain number on every rank."""
        for found in self.found:
            assert found["norm"] == pytest.approx(found["expected_norm"], rel=1e-5)

    def test_the_mean_of_the_losses_is_the_loss_of_the_batch(self) -> None:
        """Each rank returns the mean over its micro-batches."""
        for found in self.found:
            assert found["loss"] == pytest.approx(found["expected_loss"], rel=1e-5)

    def test_the_learning_rate_of_the_returned_optimizer_has_effect(self) -> None:
        """A step with learning rate 0 changes nothing, the next one with another rate does."""
        assert all(found["rate_has_effect"] for found in self.found)

    def test_nothing_is_averaged_before_the_last_micro_batch(self) -> None:
        """Where the gradients of the first micro-batch can be seen, they differ between ranks."""
        shares = {found["share"]: found["first_gradient"] for found in self.found}
        seen = [gradient for gradient in shares.values() if gradient]
        assert len(seen) < 2 or seen[0] != seen[1]

    def test_state_comes_back_bit_for_bit(self) -> None:
        """After load_state the state is what was saved, and the next step is what it was the first time."""
        for found in self.found:
            assert found["restored"] == found["saved"]
            assert found["repeated"] == found["after"]
            assert found["after"] != found["saved"]

    def test_looking_at_the_state_is_no_step(self) -> None:
        """The optimizer has counted the one step that was taken, although its state was asked for before."""
        assert all(found["steps"] == [1.0] * 4 for found in self.found)

    def test_replicas_are_equal_after_steps(self) -> None:
        """Every rank holds the same model."""
        assert all(found["after"] == self.found[0]["after"] for found in self.found)

    def test_barrier_waits_for_the_last_rank(self) -> None:
        """Nobody leaves before everybody has arrived."""
        assert min(found["left_s"] for found in self.found) >= max(found["arrived_s"] for found in self.found)

    def test_teardown_may_be_called_twice(self) -> None:
        """A second teardown does nothing."""
        assert all(found["torn_down"] for found in self.found)


def run_on_ranks(strategy: str, options: dict[str, Any], ranks: int, device: str) -> list[dict[str, Any]]:
    """Return what each rank found; raise AssertionError with the end of their output when they fail."""
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={ranks}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*start, "gnomon.strategy.conformance", strategy, json.dumps(options), device, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return [json.loads(Path(folder, f"{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]


def main(strategy_name: str, options: str, device_name: str, folder: str) -> None:
    """Use the strategy as one rank and write what was found to `folder`."""
    environment = RankEnvironment.detect()
    device = resolve_device(device_name, environment.local_rank)
    strategy = create_strategy(strategy_name, environment, device, json.loads(options))
    strategy.setup()
    found = {"rank": environment.rank, **_collectives(strategy), **_training(strategy), **_barrier(strategy)}
    strategy.teardown()
    strategy.teardown()
    Path(folder, f"{environment.rank}.json").write_text(json.dumps({**found, "torn_down": True}), encoding="utf-8")


def _collectives(strategy: Strategy) -> dict[str, Any]:
    rank, last = strategy.environment.rank, strategy.environment.world_size - 1
    value, over = torch.tensor([rank, 0.5], device=strategy.device), strategy.collectives
    gathered = over.gather(value, destination=last)
    return {
        "sum": over.all_reduce(value, "sum").tolist(),
        "mean": over.all_reduce(value).tolist(),
        "max": over.all_reduce(value, "max").tolist(),
        "min": over.all_reduce(value, "min").tolist(),
        "all_gather": [item.tolist() for item in over.all_gather(value)],
        "gather_to_last": None if gathered is None else [item.tolist() for item in gathered],
        "broadcast_from_last": over.broadcast(value, source=last).tolist(),
        "object_from_first": over.broadcast_object({"from": rank}),
        "object_from_last": over.broadcast_object({"from": rank}, source=last),
        "objects": over.gather_objects(rank),
        "input": value.tolist(),
    }


def _training(strategy: Strategy) -> dict[str, Any]:
    torch.manual_seed(strategy.environment.rank)
    run = _Run(strategy)
    weights = run.state()["model"]
    torch.manual_seed(1234)
    batches = torch.randn(run.shares, MICRO_BATCHES, 3, 4).to(strategy.device)  # share, micro-batch, sample, feature
    found = {"weights": _flat(weights), "share": run.share, "shares": run.shares}
    loss, norm = run.step(batches[run.share], learning_rate=0.0)
    state = run.state()
    found |= {
        "loss": strategy.collectives.all_reduce(loss).item(),
        "norm": norm.item(),
        "first_gradient": run.first_gradient,
        "gradient": _flat({name: moments["exp_avg"] / (1 - BETA) for name, moments in state["optimizer"].items()}),
        "shapes": _shapes(state),
        "steps": [moments["step"].item() for moments in state["optimizer"].values()],
        **_expected(weights, batches.flatten(0, 2)),
    }
    unchanged = torch.equal(state["model"]["0.weight"], weights["0.weight"])
    run.step(batches[run.share])
    changed = not torch.equal(run.state()["model"]["0.weight"], weights["0.weight"])
    saved = run.snapshot()
    before = _flat_state(saved)
    run.step(batches[run.share])
    after = run.state()
    strategy.load_state(run.model, run.optimizer, saved)
    restored = run.state()
    run.step(batches[run.share])
    return {
        **found,
        "rate_has_effect": unchanged and changed,
        "saved": before,
        "restored": _flat_state(restored),
        "after": _flat_state(after),
        "repeated": _flat_state(run.state()),
    }


class _Run:
    """A small model under the strategy, made and used in the order in which the trainer does it."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.share, self.shares = strategy.data_shard
        self.model = strategy.prepare(_perceptron())
        self.module = strategy.module(self.model)
        self.optimizer = strategy.prepare_optimizer(self.model, _adamw(self.module), MAX_NORM)
        self.first_gradient: list[float] = []

    def step(self, batches: Tensor, learning_rate: float = 0.1) -> tuple[Tensor, Tensor]:
        """Do one optimizer step with micro-batches (micro-batch, sample, feature); return loss and gradient norm."""

        def training_step(batch: Tensor) -> Tensor:
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            if gradients and not self.first_gradient:
                self.first_gradient = torch.cat([_local(gradient).flatten() for gradient in gradients]).tolist()
            return self.model(batch).square().mean()

        strategy = self.strategy
        loss = strategy.forward_backward(self.model, training_step, iter(batches), len(batches))
        norm = strategy.clip(list(self.module.parameters()), MAX_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def state(self) -> dict[str, Any]:
        """Return a copy of the state, every tensor whole."""
        return _map(self.strategy.state(self.model, self.optimizer), lambda tensor: _whole(tensor).detach().clone())

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the state as it is."""
        return _map(self.strategy.state(self.model, self.optimizer), lambda tensor: tensor.detach().clone())


def _expected(weights: dict[str, Tensor], batch: Tensor) -> dict[str, Any]:
    """Return what one process finds with the whole batch (sample, feature)."""
    model = _perceptron().to(batch.device)
    model.load_state_dict(weights)
    optimizer = _adamw(model)
    loss = model(batch).square().mean()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    moments = {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}
    return {
        "expected_loss": loss.item(),
        "expected_norm": norm.item(),
        "expected_gradient": _flat({name: moment["exp_avg"] / (1 - BETA) for name, moment in moments.items()}),
        "expected_shapes": _shapes({"model": model.state_dict(), "optimizer": moments}),
    }


class _RunningMean(nn.Module):
    """Leaves its input alone and keeps a mean of it in a buffer, which differs between ranks until it is shared."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.detach().mean(), 0.1)
        return x


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), _RunningMean())


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    groups = [{"params": [p], "weight_decay": 0.1 if p.dim() > 1 else 0.0} for p in model.parameters()]
    return torch.optim.AdamW(groups, lr=0.1, betas=(BETA, 0.95))


def _barrier(strategy: Strategy) -> dict[str, Any]:
    time.sleep(0.2 * strategy.environment.rank)
    arrived_s = time.monotonic()
    strategy.collectives.barrier()
    return {"arrived_s": arrived_s, "left_s": time.monotonic()}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _map(value: Any, change: Any) -> Any:
    return {key: _map(item, change) for key, item in value.items()} if isinstance(value, dict) else change(value)


def _flat(tensors: dict[str, Tensor]) -> Flat:
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


def _flat_state(state: dict[str, Any]) -> dict[str, Flat]:
    whole = _map(state, _whole)
    return {"model": _flat(whole["model"]), **{name: _flat(moments) for name, moments in whole["optimizer"].items()}}


def _shapes(state: dict[str, Any]) -> dict[str, list[int]]:
    shapes = {f"model.{name}": list(tensor.shape) for name, tensor in state["model"].items()}
    for name, moments in state["optimizer"].items():
        shapes |= {f"optimizer.{name}.{key}": list(tensor.shape) for key, tensor in moments.items()}
    return dict(sorted(shapes.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
