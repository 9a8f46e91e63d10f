"""Libraries of the extra `data`, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from gnomon.errors import DataError


def load_library(module: str, purpose: str) -> Any:
    """Return an imported module; raise DataError that says how to install it and what for."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = f"'{package}' is not installed" if error.name == package else f"'{module}' does not load: {error}"
        raise DataError(f"{purpose} needs a library, and {missing}. Install it: pip install 'gnomon[data]'.") from None
