"""The example configurations of `3dtrn`, changed key by key, on a machine and a stack of round numbers."""

import copy
from pathlib import Path

from gnomon.plan.training_3d.analyse import analyse
from gnomon.plan.training_3d.result import Training3D
from gnomon.plan.training_3d.schema import TrainingConfig
from gnomon.spec import StackSpec
from gnomon.spec._noun import read_mapping

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "3dtrn"
FIXTURES = ROOT / "tests" / "fixtures" / "3dtrn"
STACK = StackSpec.load(FIXTURES / "stack.yaml")


def mapping(name: str, changes: dict | None = None, fixed: bool = True) -> dict:
    """Return an example as plain data, on the round machine if `fixed`; keys of `changes` are dotted paths."""
    data = copy.deepcopy(read_mapping(EXAMPLES / f"{name}.yaml"))
    if fixed:
        data["hardware"]["node_type"] = str(FIXTURES / "cluster.yaml")
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = data
        for key in parents:
            place = place.setdefault(key, {})
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return data


def report(name: str, changes: dict | None = None, fixed: bool = True) -> Training3D:
    """Return the report on a changed example."""
    config = TrainingConfig.from_mapping(mapping(name, changes, fixed), where=name)
    return analyse(config, name, STACK if fixed else None)


def component(found: Training3D, name: str) -> float:
    """Return the seconds of one component of the iteration, zero when it has none."""
    return sum(part.seconds for part in found.iteration.components if part.name == name)
