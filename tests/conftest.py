"""What every test shares: how hypothesis runs, and an environment in which times can be measured."""

import os

import pytest
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def uncovered_environment() -> dict[str, str]:
    """The environment without coverage in child processes, which would slow what is timed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
