"""The settings of a training run: what follows from what, and what is refused."""

import math

import pytest

from gnomon.errors import LayoutError, SpecError
from gnomon.train.config import GPTTrainingConfig, TrainingConfig
from gnomon.train.schedule import learning_rates
from training_fixtures import TINY_MODEL, tiny_config


def test_accumulation_and_precision_follow_from_workload_and_layout(tmp_path):
    workload = {"seq_len": 32, "global_batch": 24, "micro_batch": 4, "precision": "bf16"}
    config = tiny_config(tmp_path / "run", workload=workload, layout={"dp": 2})
    assert (config.accumulation, config.precision, config.grad_clip) == (3, "bf16", 1.0)
    assert GPTTrainingConfig.from_mapping(config.to_mapping()) == config


def test_a_workload_without_clipping_turns_clipping_off(tmp_path):
    workload = {"seq_len": 32, "global_batch": 8, "micro_batch": 4, "gradient_clipping": False}
    assert tiny_config(tmp_path / "run", workload=workload).grad_clip is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulation": 3}, "accumulation=3, but the workload and the layout give 2"),
        ({"precision": "bf16"}, "precision=bf16, but the workload and the layout give fp32"),
        ({"grad_clip": None}, "gradient_clipping is true"),
        ({"warmup_steps": 7}, "warmup_steps=7 exceeds num_steps=6"),
        ({"model": {**TINY_MODEL, "vocab_size": 100}}, "byte-level text has 256 tokens"),
        ({"model": {**TINY_MODEL, "max_seq_len": 16}}, "seq_len=32 exceeds model.max_seq_len=16"),
        ({"learning_rat": 1e-3}, "Did you mean 'learning_rate'"),
        ({"num_steps": 0}, "num_steps"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_does_not_fit_together_is_a_spec_error(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message):
        tiny_config(tmp_path / "run", **changes)


def test_a_batch_that_does_not_divide_and_a_split_of_the_model_are_layout_errors(tmp_path):
    with pytest.raises(LayoutError, match="does not divide by micro_batch=4 x dp=3"):
        tiny_config(tmp_path / "run", layout={"dp": 3})
    with pytest.raises(LayoutError, match=r"zero_stage=1 can be planned, but gnomon.s own loop"):
        tiny_config(tmp_path / "run", layout={"tp": 2, "zero_stage": 1})


def test_the_schedule_warms_up_and_ends_at_its_lowest_rate():
    rate = learning_rates(
        TrainingConfig(run_dir="x", num_steps=14, warmup_steps=4, learning_rate=1.0, min_learning_rate_ratio=0.2)
    )
    assert [rate(step) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate(9) == pytest.approx(0.6)  # half-way down
    assert rate(5) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 10)) / 2)
    assert rate(14) == pytest.approx(0.2)


def test_a_schedule_that_only_warms_up_or_stays_constant():
    only = learning_rates(TrainingConfig(run_dir="x", num_steps=4, warmup_steps=4, learning_rate=1.0))
    assert only(4) == 1.0
    constant = learning_rates(TrainingConfig(run_dir="x", num_steps=9, learning_rate=0.3, min_learning_rate_ratio=1.0))
    assert {constant(step) for step in range(1, 10)} == {0.3}
