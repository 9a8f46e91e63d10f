"""`python -m lightning_worker FOLDER`: one rank that trains the small LightningModule both ways."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from gnomon.launch.rank_errors import report_rank_error
from lightning_fixtures import Classifier, make_bridge, make_lightning, weights
from supervised_fixtures import TEST, TRAIN, VALIDATION


class Direct(Classifier):
    """Calls its layers and not itself in a step, so that only the wrapper can gather the weights."""

    def forward(self, inputs):
        """Return the logits, with a weight of the module's own."""
        return self.network(inputs) * self.one

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("one", nn.Parameter(torch.ones(3), requires_grad=False))

    def validation_step(self, batch, batch_idx):
        """Log what the common one logs."""
        inputs, targets = batch
        outputs = self.network(inputs) * self.one
        self.accuracy.update(outputs, targets)
        self.log("val_accuracy", self.accuracy)
        self.log("val_loss", nn.functional.cross_entropy(outputs, targets))

    test_step = validation_step


def main() -> None:
    """Train; write the weights to FOLDER/rank-N.json."""
    with report_rank_error():
        folder = Path(sys.argv[1])
        dist.init_process_group("gloo")
        *_, bridged = make_bridge(folder / "bridge", eval_every=5).execute(TRAIN, VALIDATION, TEST)
        sharded = make_bridge(folder / "sharded", Direct, strategy="fsdp", eval_every=5)
        sharded.execute(TRAIN, VALIDATION, TEST)
        *_, fitted = make_lightning(folder / "lightning").execute(TRAIN)
        found = {"bridge": weights(bridged).tolist(), "lightning": weights(fitted).tolist()}
        Path(folder, f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
