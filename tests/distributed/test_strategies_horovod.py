"""Horovod started by its own launcher, and what happens without it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gnomon.errors import LaunchError
from gnomon.runtime.environment import LAUNCHER_VARIABLES, RankEnvironment
from gnomon.strategy.registry import create_strategy

needs_horovod = pytest.mark.skipif(find_spec("horovod") is None, reason="Horovod is not built: make horovod")

PROGRAM = """
import torch, torch.distributed as dist
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.registry import create_strategy
environment = RankEnvironment.detect()
strategy = create_strategy("horovod", environment, torch.device("cpu"))
strategy.setup()
over = strategy.collectives
total = over.all_reduce(torch.tensor([environment.rank + 1.0]), "sum").item()
apart = over.separate().all_reduce(torch.tensor([environment.rank + 1.0]), "sum").item()
schedule = torch.optim.lr_scheduler.StepLR(
    strategy.prepare_optimizer(model := strategy.prepare(torch.nn.Linear(2, 1)),
                               torch.optim.SGD(model.parameters(), lr=1.0), None), 1)
found = (environment.source, environment.world_size, total, apart, dist.get_world_size(), over.gather_objects(None))
print("FOUND", *found)
strategy.teardown()
"""


def test_without_horovod_the_error_names_the_make_target(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    environment = RankEnvironment(world_size=2, local_world_size=2, source="torchrun")
    with pytest.raises(LaunchError, match="`make horovod` builds it"):
        create_strategy("horovod", environment, torch.device("cpu")).setup()


@needs_horovod
@pytest.mark.torch_dist
def test_ranks_of_horovodrun_also_have_a_process_group(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["horovodrun", "--gloo", "-np", "2", sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split("FOUND ")[1] for line in done.stdout.splitlines() if "FOUND " in line]
    assert found == ["horovod 2 3.0 3.0 2 [None, None]"] * 2
