"""A flow for phi^4: its density, what it reaches, and that it agrees with Hybrid Monte Carlo."""

import math

import pytest
import torch

TRAINING = "training_pipeline.steps.train.config"
SMALL = ("size=4", "batch=64", "eval_samples=512", "num_steps=6", f"{TRAINING}.warmup_steps=2")


def test_convolution_is_that_of_a_torus(import_module):
    flow = import_module("lattice_qcd", "flow")
    for size in (4, 6):
        ours = flow.PeriodicConvolution(size, 3, 5)
        theirs = torch.nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular")
        theirs.weight, theirs.bias = ours.weight, ours.bias
        fields = torch.randn(7, 3, size, size)
        torch.testing.assert_close(ours(fields), theirs(fields))


def test_log_density_is_the_change_of_variables(import_module):
    flow = import_module("lattice_qcd", "flow")
    torch.manual_seed(0)
    model = flow.Flow(size=4, layers=4, hidden=3).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    noise = torch.randn(3, 4, 4, dtype=torch.float64)
    _, log_q = model(noise)
    for index, sample in enumerate(noise):
        jacobian = torch.autograd.functional.jacobian(lambda z: model(z.view(1, 4, 4))[0].flatten(), sample.flatten())
        density = -0.5 * (sample**2 + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian)[1]
        assert log_q[index].item() == pytest.approx(density.item(), abs=1e-10)


def test_action_is_that_of_a_sum_over_links(import_module):
    """Translations, rotations and the sign change nothing; a constant field has the potential alone."""
    action = import_module("lattice_qcd", "action").Phi4(size=4, m2=-4.0, lam=8.0)
    phi = torch.randn(2, 4, 4, dtype=torch.float64)
    for same in (phi.roll(1, 1), phi.roll(3, 2), phi.transpose(1, 2), -phi):
        torch.testing.assert_close(action(same), action(phi))
    links = sum(((phi - phi.roll(1, axis)) ** 2).sum((1, 2)) for axis in (1, 2))
    torch.testing.assert_close(action(phi), links + (-4.0 * phi**2 + 8.0 * phi**4).sum((1, 2)))


def test_effective_sample_size_of_known_weights(import_module):
    metrics = import_module("lattice_qcd", "metrics")
    for weights, share in (([1.0, 1.0, 1.0, 1.0], 1.0), ([1.0, 1e-30, 1e-30, 1e-30], 0.25), ([2.0, 1.0], 0.9)):
        metric = metrics.EffectiveSampleSize()
        metric.update(torch.tensor(weights).log() + 700.0, torch.zeros(len(weights)))
        assert metric.compute().item() == pytest.approx(share, rel=1e-4)  # 700 has few digits after the point


def test_the_flow_samples_the_lattice(exec_pipeline, last_row, import_module, tmp_path):
    exec_pipeline("lattice_qcd", "size=4", "num_steps=800", f"run_dir={tmp_path}/run")
    row = last_row(tmp_path / "run", "eval_ess")
    assert row["eval_ess"] >= 0.5
    action = import_module("lattice_qcd", "action")
    chains = 4096
    phi, accepted = action.hamiltonian_monte_carlo(action.Phi4(size=4), chains, 60)
    assert 0.8 < accepted < 1
    squares = (phi**2).mean((1, 2))
    error = math.hypot(row["eval_phi2_error"], squares.std().item() / math.sqrt(chains))
    assert error < 0.01 * row["eval_phi2"]
    assert abs(row["eval_phi2"] - squares.mean().item()) < 3 * error


@pytest.mark.torch_dist
def test_two_ranks_and_accumulation_learn_what_one_rank_does(exec_pipeline, last_row, tmp_path):
    for name, more in (("one", ["--ranks", "1"]), ("two", ["--ranks", "2", f"+{TRAINING}.accumulation=2"])):
        exec_pipeline("lattice_qcd", *SMALL, f"run_dir={tmp_path}/{name}", *more)
    one, two = (last_row(tmp_path / name, "eval_ess") for name in ("one", "two"))
    for figure in ("eval_loss", "eval_ess", "eval_phi2", "eval_phi2_error"):
        assert two[figure] == pytest.approx(one[figure], rel=1e-5)


def test_a_resumed_run_is_the_run_that_never_stopped(exec_pipeline, last_row, tmp_path):
    constant = [*SMALL, f"+{TRAINING}.lr_schedule=constant", f"{TRAINING}.checkpoint_every=3"]
    exec_pipeline("lattice_qcd", *constant, f"run_dir={tmp_path}/whole")
    exec_pipeline("lattice_qcd", *constant, "num_steps=3", f"run_dir={tmp_path}/parts")
    exec_pipeline("lattice_qcd", *constant, "resume=true", f"run_dir={tmp_path}/parts")
    for figure in ("loss", "eval_loss", "eval_ess"):
        assert last_row(tmp_path / "parts", figure)[figure] == last_row(tmp_path / "whole", figure)[figure]


def test_a_lattice_without_a_checkerboard_is_refused(exec_pipeline, tmp_path):
    done = exec_pipeline("lattice_qcd", "size=5", f"run_dir={tmp_path}/run", check=False)
    assert done.returncode == 1
    assert "action.size" in done.stderr
    assert "multiple of 2" in done.stderr
