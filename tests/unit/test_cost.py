"""Time, money, energy and carbon of a run, against hand-computed and published values."""

import json
import re
import subprocess
import sys

import pytest

from gnomon.errors import PlanError, SpecError
from gnomon.plan.cost import CostRates, average_power_w, estimate_checkpoint_bytes, parse_count, training_cost
from gnomon.plan.estimate import Estimate
from gnomon.plan.goodput import Reliability
from gnomon.spec import Layout, MemoryBreakdown, TimeBreakdown, Workload
from gnomon.spec.catalog import load_cluster, load_model

COMMAND = [sys.executable, "-c", "from gnomon.cli.main import main; main()", "plan", "cost"]


def an_estimate(step_time_s=10.0, dp=2048, cluster="dgx-a100", model="llama-65b", **workload):
    """Return an estimate whose times are given: it is a fake, its nouns are real."""
    nodes = max(dp // 8, 1)
    fields = {"seq_len": 2048, "global_batch": 2048, "micro_batch": 1, "precision": "bf16", **workload}
    time = TimeBreakdown(matmul_s=0.8 * step_time_s, communication_s=0.15 * step_time_s, bubble_s=0.05 * step_time_s)
    return Estimate(
        model=load_model(model),
        cluster=load_cluster(cluster, nodes),
        layout=Layout(dp=dp),
        workload=Workload(**fields),
        num_parameters=65_285_660_672,
        model_flops=1.0,
        step_time_s=step_time_s,
        tokens_per_s=1.0,
        mfu=None,
        time=time,
        memory=MemoryBreakdown(),
        fits=None,
    )


def test_energy_and_carbon_of_llama_65b():
    """1,022,362 GPU-hours of 400 W at PUE 1.1 and 0.385 kg/kWh: 449 MWh, 173 t (arXiv 2302.13971, table 15)."""
    estimate = an_estimate()
    steps = 1_022_362 * 3600 / (2048 * 10.0)
    tokens = steps * 2048 * 2048
    found = training_cost(estimate, tokens, CostRates(pue=1.1, carbon_intensity_kg_per_kwh=0.385))
    assert found.accelerator_hours == pytest.approx(1_022_362, rel=1e-5)
    assert found.facility_energy_kwh == pytest.approx(449_000, rel=3e-3)
    assert found.carbon_kg == pytest.approx(173_000, rel=3e-3)


def test_a_checkpoint_holds_the_prediction_modules_too():
    """DeepSeek-V3: 671.0 and 11.6 billion parameters at 14 bytes (16-bit weights, fp32 masters and moments)."""
    estimate = an_estimate(model="deepseek-v3", stack="megatron-core").model_copy(
        update={"num_parameters": 671_026_404_352}
    )
    assert estimate_checkpoint_bytes(estimate) == pytest.approx((671.03e9 + 11.61e9) * 14, rel=1e-3)


@pytest.mark.parametrize("rates", [{"pue": 1e308}, {"price_per_accelerator_hour": 1e308}, {"pue": 0.5}])
def test_rates_that_are_slips_of_the_pen_are_refused(rates):
    with pytest.raises(SpecError, match=next(iter(rates))):
        CostRates.from_mapping(rates)


def test_steps_time_and_money_by_hand():
    estimate = an_estimate(step_time_s=2.0, dp=16)
    found = training_cost(estimate, 1e9, CostRates(price_per_accelerator_hour=2.5))
    assert found.num_steps == 239  # 1e9 / 4194304 = 238.4, the last step counts whole
    assert found.training_s == 478.0
    assert found.accelerator_hours == pytest.approx(16 * 478 / 3600)
    assert found.cost == pytest.approx(16 * 478 / 3600 * 2.5)
    assert found.tokens_per_day == pytest.approx(4194304 / 2.0 * 86400)
    assert found.wall_s is None
    assert found.goodput is None


def test_tokens_of_an_encoder_decoder_are_the_decoder_s():
    note = "tokens are those of the decoder; an encoder's come on top"
    assert note in training_cost(an_estimate(model="t5-11b"), 1e9, CostRates()).assumptions
    assert note not in training_cost(an_estimate(), 1e9, CostRates()).assumptions


def test_failures_stretch_time_and_cost():
    known = Reliability(accelerator_mtbf_s=1e8, checkpoint_s=30.0, recovery_s=300.0)
    plain = training_cost(an_estimate(), 1e12, CostRates(price_per_accelerator_hour=1.0))
    found = training_cost(an_estimate(), 1e12, CostRates(price_per_accelerator_hour=1.0), known)
    assert found.goodput is not None
    assert found.wall_s is not None
    assert plain.cost is not None
    assert found.goodput.mtbf_s == pytest.approx(1e8 / 2048)
    assert found.wall_s == pytest.approx(plain.training_s / found.goodput.goodput)
    assert found.cost == pytest.approx(plain.cost / found.goodput.goodput)
    with pytest.raises(PlanError, match="fails too often"):
        training_cost(an_estimate(), 1e12, CostRates(), Reliability(node_mtbf_s=9.0, checkpoint_s=9.0, recovery_s=9.0))


def test_what_is_not_given_stays_unknown():
    found = training_cost(an_estimate(), 1e12, CostRates())
    assert (found.cost, found.facility_energy_kwh, found.carbon_kg) == (None, None, None)
    assert found.accelerator_energy_kwh == pytest.approx(found.accelerator_hours * 0.4)
    unknown = an_estimate(cluster="trn2.48xlarge", dp=16)
    assert unknown.cluster.accelerator.tdp_w is None
    priced = training_cost(unknown, 1e12, CostRates(pue=1.2, price_per_accelerator_hour=1.0))
    assert (priced.power_w, priced.facility_energy_kwh) == (None, None)
    assert priced.cost is not None


def test_power_is_linear_in_the_computing_share():
    estimate = an_estimate()
    assert average_power_w(estimate.cluster, estimate.time, None) == 400.0
    assert average_power_w(estimate.cluster, estimate.time, 0.25) == pytest.approx(400 * (0.25 + 0.75 * 0.8))
    assert average_power_w(estimate.cluster, estimate.time, 1.0) == pytest.approx(400.0)


def test_checkpoints_hold_weights_and_optimizer():
    # Megatron's mixed storage: 2 + 12 bytes per parameter; the autocast stack: 4 + 8
    megatron = an_estimate(stack="megatron")
    assert estimate_checkpoint_bytes(megatron) == 14 * megatron.num_parameters
    assert estimate_checkpoint_bytes(an_estimate()) == 12 * megatron.num_parameters


@pytest.mark.parametrize(("text", "value"), [("15T", 15e12), ("300 b", 300e9), ("1.5e12", 1.5e12), ("2000", 2000.0)])
def test_counts_are_read(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "0", "-5B", "15X", "inf", "nan", "1e999"])
def test_wrong_counts_are_refused(text):
    with pytest.raises(PlanError, match=re.escape(f"'{text}' is not a positive number of tokens")):
        parse_count(text)


def test_wrong_rates_are_refused():
    with pytest.raises(SpecError, match="pue"):
        CostRates.from_mapping({"pue": 0.9})
    with pytest.raises(SpecError, match="price_per_accelerator_hour"):
        CostRates.from_mapping({"price_per_accelerator_hour": float("nan")})
    with pytest.raises(PlanError, match="give a positive number of tokens"):
        training_cost(an_estimate(), -1.0, CostRates())


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


CONFIG = "examples/plan/llama-3.2-1b-h100.yaml"


def test_the_command_prints_json():
    done = run(
        CONFIG, "--tokens", "1T", "--mtbf-hours", "50000", "--checkpoint-bandwidth", "10 GB",
        "--restart-time", "10 min", "--price-per-accelerator-hour", "2.5", "--pue", "1.2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] == 1e12
    assert found["cost"] == pytest.approx(2.5 * found["accelerator_hours"])
    assert found["goodput"]["mtbf_s"] == pytest.approx(50000 * 3600 / 16)
    assert 0.9 < found["goodput"]["goodput"] < 1.0
    assert found["carbon_kg"] is None


def test_the_command_needs_tokens():
    done = run(CONFIG)
    assert done.returncode == 2
    assert "--tokens" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokens", "5Q"), "not a positive number of tokens"),
        (("--tokens", "1T", "--mtbf-hours", "1000"), "neither is given"),
        (("--tokens", "1T", "--interval", "5 min"), "no MTBF is given"),
        (
            ("--tokens", "1T", "--mtbf-hours", "0", "--checkpoint-time", "9 s", "--restart-time", "1 s"),
            "--mtbf-hours is 0. Give a positive number of hours",
        ),
        (("--tokens", "1T", "--mtbf-hours", "9", "--checkpoint-time", "9 s"), "the time to restart counts"),
        (("--tokens", "1T", "--pue", "0.5"), "--pue is 0.5"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message):
    done = run(CONFIG, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
