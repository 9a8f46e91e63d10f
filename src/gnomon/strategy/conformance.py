"""What every strategy must do, as a test class. A third party subclasses it and lets pytest collect it:

    class TestMyStrategy(StrategyConformance):
        strategy = "my_strategy"    # its name among the entry points `gnomon.strategies`
        ranks = 2

The ranks are real processes, started once per class; each test looks at what they found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from gnomon.runtime.devices import resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy
from gnomon.strategy.registry import create_strategy

TIMEOUT_S = 120
TOLERANCE = 1e-6  # relative to gradients of order one, in fp32


class StrategyConformance:
    """Tests of all methods of a strategy over `ranks` processes on `device`."""

    strategy: ClassVar[str]
    ranks: ClassVar[int] = 2
    device: ClassVar[str] = "cpu"
    found: ClassVar[list[dict[str, Any]]]

    @classmethod
    def setup_class(cls) -> None:
        """Start the ranks and collect what they found."""
        cls.found = run_on_ranks(cls.strategy, cls.ranks, cls.device)

    def test_mean_is_exact_and_leaves_its_input_alone(self) -> None:
        """The mean over ranks of [rank, 0.1] has no rounding error for powers of two."""
        for found in self.found:
            assert found["input"][0] == found["rank"]
            assert found["mean"] == [(self.ranks - 1) / 2, found["input"][1]]

    def test_objects_reach_every_rank(self) -> None:
        """Broadcast gives rank 0's object, gather gives all in order of rank."""
        for found in self.found:
            assert found["broadcast"] == {"from": 0}
            assert found["gathered"] == list(range(self.ranks))

    def test_prepare_gives_every_rank_the_same_weights_on_its_device(self) -> None:
        """Ranks that start from different weights continue with those of rank 0."""
        assert all(found["weights"] == self.found[0]["weights"] for found in self.found)
        assert all(found["device"] == found["parameter_device"] for found in self.found)

    def test_accumulated_gradients_are_those_of_the_whole_batch(self) -> None:
        """Two micro-batches per rank, averaged at the last one, equal one batch in one process."""
        for found in self.found:
            torch.testing.assert_close(
                torch.tensor(found["gradient"]), torch.tensor(found["expected"]), rtol=TOLERANCE, atol=TOLERANCE
            )

    def test_nothing_is_sent_before_the_last_micro_batch(self) -> None:
        """The gradients of the first micro-batch differ between ranks: they have not been averaged."""
        first = [found["first_gradient"] for found in self.found]
        assert self.ranks == 1 or first[0] != first[1]

    def test_barrier_waits_for_the_last_rank(self) -> None:
        """Nobody leaves before everybody has arrived."""
        assert min(found["left_s"] for found in self.found) >= max(found["arrived_s"] for found in self.found)

    def test_teardown_may_be_called_twice(self) -> None:
        """A second teardown does nothing."""
        assert all(found["torn_down"] for found in self.found)


def run_on_ranks(strategy: str, ranks: int, device: str) -> list[dict[str, Any]]:
    """Return what each rank found; raise AssertionError with the end of their output when they fail."""
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={ranks}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*start, "gnomon.strategy.conformance", strategy, device, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return [json.loads(Path(folder, f"{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]


def main(strategy_name: str, device_name: str, folder: str) -> None:
    """Use the strategy as one rank and write what was found to `folder`."""
    environment = RankEnvironment.detect()
    strategy = create_strategy(strategy_name, environment, resolve_device(device_name, environment.local_rank))
    strategy.setup()
    found = {"rank": environment.rank, **_collectives(strategy), **_gradients(strategy), **_barrier(strategy)}
    strategy.teardown()
    strategy.teardown()
    Path(folder, f"{environment.rank}.json").write_text(json.dumps({**found, "torn_down": True}), encoding="utf-8")


def _collectives(strategy: Strategy) -> dict[str, Any]:
    rank = strategy.environment.rank
    value = torch.tensor([rank, 0.1], device=strategy.device)
    return {
        "mean": strategy.collectives.all_reduce(value).tolist(),
        "input": value.tolist(),
        "broadcast": strategy.collectives.broadcast_object({"from": rank}),
        "gathered": strategy.collectives.gather_objects(rank),
    }


def _gradients(strategy: Strategy) -> dict[str, Any]:
    rank, ranks = strategy.environment.rank, strategy.environment.world_size
    torch.manual_seed(rank)
    model = strategy.prepare(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
    weights = _flat([parameter.detach() for parameter in model.parameters()])
    torch.manual_seed(1234)
    batches = torch.randn(ranks, 2, 3, 4).to(strategy.device)  # rank, micro-batch, sample, feature
    whole = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(strategy.device)
    nn.utils.vector_to_parameters(torch.tensor(weights, device=strategy.device), whole.parameters())
    whole(batches.flatten(0, 2)).square().mean().backward()
    first: list[float] = []
    for index, batch in enumerate(batches[rank]):
        with strategy.synchronise(model, is_last=index == 1):
            (model(batch).square().mean() / 2).backward()
        first = first or _flat([parameter.grad for parameter in model.parameters()])
    return {
        "weights": weights,
        "first_gradient": first,
        "gradient": _flat([parameter.grad for parameter in model.parameters()]),
        "expected": _flat([parameter.grad for parameter in whole.parameters()]),
        "device": str(strategy.device),
        "parameter_device": str(next(model.parameters()).device),
    }


def _barrier(strategy: Strategy) -> dict[str, Any]:
    time.sleep(0.2 * strategy.environment.rank)
    arrived_s = time.monotonic()
    strategy.collectives.barrier()
    return {"arrived_s": arrived_s, "left_s": time.monotonic()}


def _flat(tensors: list[Any]) -> list[float]:
    values: list[float] = torch.cat([tensor.flatten() for tensor in tensors]).tolist()
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
