"""What DeepSpeed's engine is given, and what is refused."""

import subprocess
import sys

import pytest
import torch

from gnomon.errors import ConfigError, LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.registry import create_strategy

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'gnomon[deepspeed]'")

CPU = torch.device("cpu")
ONE_OF_ONE = RankEnvironment(source="torchrun")
STEP_IN_BF16 = """
import os, torch
from torch import nn
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.registry import create_strategy

os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
strategy = create_strategy("deepspeed", RankEnvironment(source="torchrun"), torch.device("cpu"), {"zero_stage": 2})
strategy.setup()
model = strategy.prepare(nn.Sequential(nn.Linear(4, 2)))
module = strategy.module(model)
optimizer = strategy.prepare_optimizer(model, torch.optim.AdamW(module.parameters(), fused=True), 1.0)
dtypes = []
def training_step(batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch)
    dtypes.append(str(output.dtype))
    return output.float().square().mean()
strategy.forward_backward(model, training_step, iter(torch.randn(2, 3, 4)), 2)
norm = strategy.clip(list(module.parameters()), 1.0)
before = norm.item()
optimizer.step()
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
schedule.step()
print(dtypes, str(module[0].weight.dtype), before != before, norm.item() > 0, optimizer.param_groups[0]["lr"])
model.eval(); print(model.engine.module.training, module.training)
strategy.teardown()
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_stage": 4}, "zero_stage=4, but DeepSpeed's ZeRO has the stages 0, 1, 2 and 3"),
        ({"zero_stage": 0, "offload": True}, "offload=true needs a part to keep on the CPU"),
        ({"stage": 2}, "Did you mean 'zero_stage'"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        create_strategy("deepspeed", ONE_OF_ONE, CPU, options)


def test_without_deepspeed_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed.accelerator", None)
    with pytest.raises(LaunchError, match=r"pip install 'gnomon\[deepspeed\]'"):
        create_strategy("deepspeed", ONE_OF_ONE, CPU).setup()


def test_the_autocast_of_the_trainer_reaches_the_model_and_the_step_tells_the_norm():
    script = STEP_IN_BF16.replace('MASTER_PORT="0"', f'MASTER_PORT="{_free_port()}"')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == [
        "['torch.bfloat16', 'torch.bfloat16'] torch.float32 True True 0.0005",
        "False False",
    ]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
