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
TWO_RUNS_IN_BF16 = """
import os, socket, torch
from torch import nn
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.registry import create_strategy

for stage in (3, 2):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(probe.getsockname()[1]))
    environment = RankEnvironment(source="torchrun")
    strategy = create_strategy("deepspeed", environment, torch.device("cpu"), {"zero_stage": stage})
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
    torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5).step()
    model.eval()
    with torch.no_grad():
        training_step(torch.randn(3, 4))
    rate = optimizer.param_groups[0]["lr"]
    print("FOUND", *dtypes, module[0].weight.dtype, before != before, norm.item() > 0, rate, module.training)
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


def test_the_trainers_autocast_reaches_the_model_the_step_tells_the_norm_and_a_process_can_train_twice():
    command = [sys.executable, "-c", TWO_RUNS_IN_BF16]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert found == ["torch.bfloat16 torch.bfloat16 torch.bfloat16 torch.float32 True True 0.0005 False"] * 2
