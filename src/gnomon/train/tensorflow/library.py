"""TensorFlow and Keras, imported when they are needed and set up before they start."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

from gnomon.errors import ConfigError, LaunchError


def check_installed() -> None:
    """Raise ConfigError when TensorFlow is not installed; imports nothing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            "TensorFlowTrainer needs TensorFlow, which is not installed: pip install 'gnomon[tensorflow]', "
            "or use gnomon.train.supervised.SupervisedTrainer, which needs PyTorch."
        )


@cache
def tensorflow() -> Any:
    """Return the module tensorflow; raise ConfigError when it does not load."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on CPU features are no news to the user
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        advice = "Reinstall it: pip install 'gnomon[tensorflow]'."
        raise ConfigError(f"TensorFlow does not load: {error}. {advice}") from None


@cache
def keras() -> Any:
    """Return the module keras with TensorFlow behind it; raise LaunchError when it was told to use another backend."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    tensorflow()
    module: Any = importlib.import_module("keras")
    backend = module.backend.backend()
    if backend != "tensorflow":
        raise LaunchError(
            f"Keras uses the backend '{backend}' (KERAS_BACKEND or ~/.keras/keras.json), and this trainer needs "
            "TensorFlow. Set KERAS_BACKEND=tensorflow."
        )
    return module


def eager_context() -> Any:
    """Return what knows whether TensorFlow has started and has its barrier; there is no public way to either."""
    return importlib.import_module("tensorflow.python.eager.context").context()
