"""Seeds and states of the three generators that training draws from: Python, NumPy and PyTorch."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from gnomon.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_SEED = 2**32 - 1  # what numpy.random.seed takes


def seed_everything(seed: int, rank: int = 0) -> int:
    """Seed Python, NumPy and PyTorch (CPU and CUDA) and return the seed used.

    Rank 0 takes `seed` itself; the other ranks take independent ones derived from (seed, rank), so that
    rank 1 of seed 0 and rank 0 of seed 1 do not share a stream. Raises ConfigError outside 0..2**32-1.
    """
    import torch

    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed={seed} is out of range. Choose a whole number from 0 to {_LARGEST_SEED}.")
    own = seed if rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)
    return own


def rng_state() -> dict[str, Tensor]:
    """Return the state of every generator as tensors of fixed shape, which load with `weights_only=True`."""
    import torch

    _, words, gauss = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    keys, position = numpy_state["state"]["key"], numpy_state["state"]["pos"]
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([math.nan if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor([*keys.tolist(), position, numpy_state["has_gauss"]], dtype=torch.int64),
        "numpy_gauss": torch.tensor([numpy_state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Put every generator back into a state that `rng_state` returned; a CUDA state needs a CUDA device to act."""
    import torch

    gauss = state["python_gauss"].item()
    random.setstate((3, tuple(state["python"].tolist()), None if math.isnan(gauss) else gauss))
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, state["numpy_gauss"].item()))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
