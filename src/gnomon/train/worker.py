"""`python -m gnomon.train.worker CONFIG.json`: one rank of a training run; torchrun starts several."""

from __future__ import annotations

import sys

from gnomon.errors import ConfigError
from gnomon.launch.rank_errors import report_rank_error
from gnomon.runtime.warnings import show_on_stdout
from gnomon.train.config import GPTTrainingConfig


def main() -> None:
    """Train what the configuration file on the command line says; raise SystemExit when that fails."""
    with report_rank_error(), show_on_stdout():
        if len(sys.argv) != 2:
            raise ConfigError("One argument is needed: python -m gnomon.train.worker CONFIG.json")
        config = GPTTrainingConfig.load(sys.argv[1])
        from gnomon.train.gpt_trainer import GPTTrainer

        GPTTrainer(config).execute()


if __name__ == "__main__":
    main()
