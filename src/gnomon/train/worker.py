"""`python -m gnomon.train.worker CONFIG.json`: one rank of a training run; torchrun starts several."""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

from gnomon.errors import ConfigError, GnomonWarning
from gnomon.launch.rank_errors import report_rank_error
from gnomon.train.config import GPTTrainingConfig


def main() -> None:
    """Train what the configuration file on the command line says; raise SystemExit when that fails."""
    with report_rank_error():
        if len(sys.argv) != 2:
            raise ConfigError("One argument is needed: python -m gnomon.train.worker CONFIG.json")
        config = GPTTrainingConfig.load(sys.argv[1])
        warnings.showwarning = show_warning
        from gnomon.train.gpt_trainer import GPTTrainer

        GPTTrainer(config).execute()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our warnings to stdout, where the user reads the progress, and all others to stderr, which is logged."""
    if issubclass(category, GnomonWarning):
        print(f"{category.__name__}: {message}", flush=True)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


if __name__ == "__main__":
    main()
