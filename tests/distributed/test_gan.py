"""A GAN on two real ranks: equal replicas, the numbers of one rank, and an exact resume."""

import json
import os
from pathlib import Path

import pytest
import torch

from gan_fixtures import RING, make_gan, weights
from gnomon.launch.local import RankJob, run_ranks
from gnomon.runtime.run_directory import RunDirectory

pytestmark = [pytest.mark.torch_dist, pytest.mark.usefixtures("uncovered_children")]

TESTS = Path(__file__).parents[1]
TOLERANCE = 1e-5  # relative, of one rank against two: sums of gradients are rounded in another order


@pytest.mark.parametrize("loss", ["hinge", "wasserstein"])
def test_two_ranks_train_both_networks_to_the_weights_of_one(tmp_path, monkeypatch, loss):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
    job = RankJob(
        module="gan_worker", arguments=(str(tmp_path), loss), log_dir=tmp_path / "logs", ranks=2, threads_per_rank=1
    )
    run_ranks(job)
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # bit for bit
    assert ranks[0]["resumed"] == ranks[0]["whole"]
    settings = {"eval_every": 5, "ema_decay": 0.9, "checkpoint_every": 10, "grad_clip": 1.0}
    alone = make_gan(tmp_path / "alone", adversarial_loss=loss, **settings)
    alone.execute(RING)
    two = torch.tensor(ranks[0]["whole"])
    assert (two - weights(alone)).norm() <= TOLERANCE * two.norm()
    names = ("loss", "train_discriminator_loss", "train_fake_score", "eval_mmd", "eval_sliced_wasserstein")
    curves = [
        [row[name] for row in RunDirectory(tmp_path / run).read_metrics() for name in names if name in row]
        for run in ("alone", "whole", "stopped")
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4, abs=1e-6)
    assert curves[2] == curves[1]
