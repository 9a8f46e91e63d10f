"""Generated images side by side in one picture."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gnomon.errors import ConfigError

_CHANNELS = (1, 3)


def check_images(shape: tuple[int, ...]) -> None:
    """Raise ConfigError if samples of `shape` are no images, or if none can be written."""
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in _CHANNELS)):
        raise ConfigError(
            f"image_every is set, but a sample has the shape {shape}, which is no image: (height, width), or channels "
            "first, of which there are 1 or 3. Set image_every=0."
        )
    if importlib.util.find_spec("PIL") is None:
        raise ConfigError("image_every is set, but Pillow is not installed: pip install 'gnomon[track]'.")


def image_grid(images: Tensor, limits: tuple[float, float]) -> NDArray[Any]:
    """Return float32 (height, width, channels) from 0 to 1 with all images (count, ...) in rows, one pixel apart.

    `limits` are the values that become 0 and 1; the grid is as square as it can be, and what is left of it is 0.
    """
    low, high = limits
    array = ((images.float() - low) / max(high - low, 1e-12)).clamp(0.0, 1.0).numpy()
    array = array[:, None] if array.ndim == 3 else array
    count, channels, height, width = array.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), dtype=np.float32)
    for index, image in enumerate(array):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        grid[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)
    return grid
