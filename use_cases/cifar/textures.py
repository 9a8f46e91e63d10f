"""Pictures in the format of CIFAR-10 that are drawn by formulas: synthetic, 32 x 32 pixels, 10 classes.

Each class is a pattern; its place, size, direction, phase and both colours are drawn at random, and noise is added, so
that neither a mean colour nor a single pixel tells the class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIZE = 32
CLASSES = ("stripes", "checks", "disc", "ring", "square", "triangle", "cross", "dots", "rays", "spiral")
Field = NDArray[np.float64]
Pattern = Callable[[Field, Field, np.random.Generator], Field]


def draw(count: int, noise: float, generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (count, 3, 32, 32) from 0 to 255 and labels (count,); `noise` is a deviation, of 1 for the range.

    Two colours that differ by at least a third of the range are mixed by the pattern.
    """
    labels = generator.integers(0, len(CLASSES), count)
    images = np.stack([_image(int(label), noise, generator) for label in labels])
    return images, labels


def _image(label: int, noise: float, generator: np.random.Generator) -> NDArray[np.uint8]:
    mask = _PATTERNS[label](*_coordinates(generator), generator)
    first = generator.uniform(0.0, 1.0, 3)
    second = (first + generator.uniform(1 / 3, 2 / 3, 3)) % 1.0
    image = first[:, None, None] * (1.0 - mask) + second[:, None, None] * mask
    image += generator.normal(0.0, noise, image.shape)
    return (255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


def _coordinates(generator: np.random.Generator) -> tuple[Field, Field]:
    """Return x and y of the pixels, in units of the pattern's size, shifted and turned."""
    steps = np.arange(SIZE) - (SIZE - 1) / 2.0
    y, x = np.meshgrid(steps, steps, indexing="ij")
    x, y = x - generator.uniform(-4.0, 4.0), y - generator.uniform(-4.0, 4.0)
    angle, size = generator.uniform(0.0, 2.0 * np.pi), generator.uniform(7.0, 11.0)
    return (x * np.cos(angle) - y * np.sin(angle)) / size, (x * np.sin(angle) + y * np.cos(angle)) / size


def _soft(distance: Field) -> Field:
    """Return 1 where the distance to an edge is negative and 0 where it is positive, with an edge of about a pixel."""
    return 1.0 / (1.0 + np.exp(np.clip(20.0 * distance, -50.0, 50.0)))


def _wave(phase: Field, generator: np.random.Generator) -> Field:
    return _soft(-0.3 * np.sin(phase + generator.uniform(0.0, 2.0 * np.pi)))


def _checks(x: Field, y: Field, generator: np.random.Generator) -> Field:
    return _soft(-0.3 * np.sin(4.5 * x + generator.uniform(0.0, 6.3)) * np.sin(4.5 * y + generator.uniform(0.0, 6.3)))


def _triangle(x: Field, y: Field, generator: np.random.Generator) -> Field:
    edges = [np.cos(turn) * x + np.sin(turn) * y for turn in (0.0, 2.0 * np.pi / 3.0, 4.0 * np.pi / 3.0)]
    return _soft(np.maximum.reduce(edges) - 0.6)


def _cross(x: Field, y: Field, generator: np.random.Generator) -> Field:
    arms = np.minimum(np.abs(x), np.abs(y)) - 0.25
    return _soft(np.maximum(arms, np.maximum(np.abs(x), np.abs(y)) - 1.2))


def _dots(x: Field, y: Field, generator: np.random.Generator) -> Field:
    places = generator.uniform(-1.3, 1.3, (6, 2))
    return _soft(np.minimum.reduce([np.hypot(x - a, y - b) for a, b in places]) - 0.28)


_PATTERNS: tuple[Pattern, ...] = (
    lambda x, y, g: _wave(6.0 * x, g),
    _checks,
    lambda x, y, g: _soft(np.hypot(x, y) - 0.9),
    lambda x, y, g: _soft(np.abs(np.hypot(x, y) - 0.9) - 0.25),
    lambda x, y, g: _soft(np.maximum(np.abs(x), np.abs(y)) - 0.85),
    _triangle,
    _cross,
    _dots,
    lambda x, y, g: _wave(5.0 * np.arctan2(y, x), g),
    lambda x, y, g: _wave(np.arctan2(y, x) + 6.0 * np.hypot(x, y), g),
)
