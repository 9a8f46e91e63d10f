"""How a training run that does not reach its last step says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gnomon.errors import GnomonError, InterruptedRunError, RunDirectoryError, TrainingError
from gnomon.train.config import TrainingConfig

T = TypeVar("T")
_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR2": 140}


def attempt(work: Callable[[], T]) -> tuple[T | None, GnomonError | None]:
    """Do what one rank does alone, and return its result, and its GnomonError instead of raising it.

    An OSError becomes a RunDirectoryError: what is done alone is to read and write the run directory.
    """
    try:
        return work(), None
    except GnomonError as caught:
        return None, caught
    except OSError as caught:
        return None, RunDirectoryError(
            f"'{caught.filename}' cannot be read or written: {caught.strerror}. "
            "Check the permissions and the free space of run_dir, or choose another one."
        )


def diverged(found: str, step: int, config: TrainingConfig, newest: Path | None) -> TrainingError:
    """Return the error for a loss or norm that is not finite; `found` says which, `newest` is the last checkpoint."""
    advice = f"'{newest}' is the last good checkpoint: continue from it" if newest else "Start again"
    return TrainingError(
        f"{found} at step {step} with learning_rate={config.learning_rate:g}, precision={config.precision}. "
        f"{advice} with a lower learning_rate, more warmup_steps or a lower "
        f"grad_clip{', and resume=true' if newest else ', in another run_dir'}."
    )


def no_figure(name: str, value: float, step: int, newest: Path | None) -> TrainingError:
    """Return the error for an evaluation that gives no finite loss though the weights are finite."""
    kept = f" '{newest}' is the last good checkpoint." if newest else ""
    return TrainingError(
        f"The {name} is {value} at step {step}, though all weights are finite. Look for values that are not finite in "
        f"the data that is evaluated, and for a division by zero, a logarithm or an overflow in its loss.{kept}"
    )


def interrupted(signal_name: str, step: int, num_steps: int, checkpoint: Path | None) -> InterruptedRunError:
    """Return the error after a signal, once the checkpoint is complete; its exit code is that of the signal."""
    error = InterruptedRunError(
        f"{signal_name} arrived; training stopped after step {step} of {num_steps}. "
        f"The checkpoint '{checkpoint}' is complete; continue from it with resume=true."
    )
    error.exit_code = _EXIT_CODES.get(signal_name, InterruptedRunError.exit_code)
    return error
