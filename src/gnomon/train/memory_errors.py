"""What to change when the memory is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from gnomon.errors import TrainingError


@contextmanager
def explain_out_of_memory(step: Callable[[], int]) -> Iterator[None]:
    """Turn PyTorch's out-of-memory errors into a TrainingError that says what to change; `step` tells the last step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        first_line = (str(error).strip().splitlines() or ["the process has no memory left"])[0].rstrip(".")
        raise TrainingError(
            f"Out of memory in step {step() + 1}: {first_line}. Halve micro_batch and double the accumulation, which "
            "gives the same result, shorten the sequence, use precision=bf16, or shard the model (strategy=fsdp)."
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator: can't allocate memory" in text
        or "DefaultCPUAllocator: not enough memory" in text
    )
