"""`python -m gan_worker FOLDER LOSS`: one rank that trains the small GAN, and again through an interruption."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from gan_fixtures import RING, make_gan, weights
from gnomon.errors import InterruptedRunError
from gnomon.launch.rank_errors import report_rank_error
from gnomon.train import agreement

RANK = int(os.environ["RANK"])
SETTINGS = {"eval_every": 5, "ema_decay": 0.9, "checkpoint_every": 10, "grad_clip": 1.0}


def main() -> None:
    """Train; write the weights of both networks to FOLDER/rank-N.json."""
    with report_rank_error():
        folder, loss = Path(sys.argv[1]), sys.argv[2]
        agreement.SECONDS_BETWEEN_QUESTIONS = 0.0  # ask for signals at every step
        dist.init_process_group("gloo")
        settings = {**SETTINGS, "adversarial_loss": loss}
        whole = make_gan(folder / "whole", **settings)
        whole.execute(RING)
        stopped = make_gan(folder / "stopped", **settings)
        step = stopped.discriminator_step

        def signalled(batch: Any) -> Any:
            if stopped.step == 6 and RANK == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batch)

        stopped.discriminator_step = signalled  # type: ignore[method-assign]
        try:
            stopped.execute(RING)
        except InterruptedRunError:
            resumed = make_gan(folder / "stopped", resume=True, **settings)
            resumed.execute(RING)
        found = {"whole": weights(whole).tolist(), "resumed": weights(resumed).tolist()}
        Path(folder, f"rank-{RANK}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
