"""Which device a rank computes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gnomon.errors import ConfigError, LaunchError, did_you_mean
from gnomon.runtime.versions import cpu_model

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = ("auto", "cpu", "cuda")


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a rank: with CUDA the GPU number `local_rank`; `auto` takes CUDA where there is one.

    Raises ConfigError for an unknown name and LaunchError when the GPU is not there.
    """
    import torch

    if name not in DEVICE_NAMES:
        raise ConfigError(f"device='{name}' is not known. {did_you_mean(name, DEVICE_NAMES)}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LaunchError(
            f"device='cuda', but PyTorch {torch.__version__} finds no CUDA device. "
            "Set device=cpu or device=auto, or install the CUDA build of PyTorch and its driver."
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise LaunchError(
            f"Local rank {local_rank} needs GPU {local_rank}, but this machine shows {count} "
            f"(0 to {count - 1}). Set ranks={count} at most, or device=cpu."
        )
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    """Return the maker's name of the device, as in `'NVIDIA H200'` or the model of the CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return re.sub(r"\s+", " ", cpu_model()) if device.type == "cpu" else str(device)
