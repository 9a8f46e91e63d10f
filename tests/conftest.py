"""What every test shares: how hypothesis runs, and an environment in which times can be measured."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Threads of OpenMP that wait for each other spin by default; where other tests have the cores, most of the time goes
# into that. Read when torch is loaded, by this process and those that it starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: where two workers share the files, both then end together."""
    items.sort(key=lambda item: "use_cases" not in item.path.parts)


@pytest.fixture
def uncovered_environment() -> dict[str, str]:
    """The environment without coverage in child processes, which would slow what is timed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}


@pytest.fixture(scope="module")
def uncovered_children() -> Iterator[None]:
    """Leave coverage out of the child processes of a file of tests that train for long what others cover."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
            patch.delenv(name)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread, as each of several ranks does, so that numbers can be compared bit for bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
