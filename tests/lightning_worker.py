"""`python -m lightning_worker FOLDER`: one rank that trains the small LightningModule both ways."""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from gnomon.launch.rank_errors import report_rank_error
from lightning_fixtures import make_bridge, make_lightning, weights
from supervised_fixtures import TEST, TRAIN, VALIDATION


def main() -> None:
    """Train; write the weights to FOLDER/rank-N.json."""
    with report_rank_error():
        folder = Path(sys.argv[1])
        dist.init_process_group("gloo")
        *_, bridged = make_bridge(folder / "bridge", eval_every=5).execute(TRAIN, VALIDATION, TEST)
        *_, fitted = make_lightning(folder / "lightning").execute(TRAIN)
        found = {"bridge": weights(bridged).tolist(), "lightning": weights(fitted).tolist()}
        Path(folder, f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
