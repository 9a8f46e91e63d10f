"""Calorimeter showers: the simulation against the formulas that it follows, and the GAN against the simulation."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "use_cases" / "gan3d"


@pytest.fixture(scope="module")
def showers():
    spec = importlib.util.spec_from_file_location("gan3d_showers", FOLDER / "showers.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks names up there
    spec.loader.exec_module(module)
    return module


def test_the_simulation_has_the_published_shape(showers):
    """Depth of the maximum ln y - 0.812, resolution s / sqrt(E) and leakage, nothing gained, most contained."""
    calorimeter = showers.Calorimeter(layers=60, layer_depth_x0=0.5, cells=16)
    for energy in (10.0, 100.0):
        seen = showers.simulate(calorimeter, np.full(400, energy), np.random.default_rng(0)).astype(float)
        response = seen.sum((1, 2, 3)) / energy
        assert 0.93 <= response.mean() <= 1.0
        sampling = calorimeter.sampling / np.sqrt(energy)
        assert 0.9 * sampling <= response.std() <= 1.1 * np.hypot(sampling, 0.008)  # leakage fluctuates as well
        profile = seen.sum((0, 2, 3))
        maximum = (np.argmax(profile) + 0.5) * calorimeter.layer_depth_x0
        assert maximum == pytest.approx(np.log(energy / calorimeter.critical_energy_gev) - 0.812, abs=0.8)
        across = seen.sum((0, 1))
        assert across.sum(0)[:8].sum() == pytest.approx(across.sum(0)[8:].sum(), rel=0.03)


def test_a_gan_makes_showers_of_a_given_energy(exec_pipeline, last_row, tmp_path):
    exec_pipeline("gan3d", f"run_dir={tmp_path}/run")
    made, baseline = (last_row(tmp_path / "run", f"test_{name}observable_distance") for name in ("", "baseline_"))
    assert made["test_observable_distance"] <= 0.55
    assert baseline["test_baseline_observable_distance"] >= 0.65  # mean showers, which do not fluctuate
    assert made["test_response_error"] <= 0.02
    assert made["test_longitudinal_distance"] <= 0.05
    assert made["test_lateral_distance"] <= 0.06


@pytest.mark.torch_dist
def test_two_ranks_make_the_same_steps(exec_pipeline, last_row, tmp_path):
    small = ["num_steps=6", "counts=[200,100,100]", "+training_pipeline.steps.train.config.log_every=1"]
    small += ["training_pipeline.steps.train.config.quality_samples=100"]
    losses = []
    for ranks in ("1", "2"):
        exec_pipeline("gan3d", "--ranks", ranks, *small, f"run_dir={tmp_path}/{ranks}")
        losses.append(last_row(tmp_path / ranks, "loss")["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_what_does_not_fit_is_said(exec_pipeline, tmp_path):
    for wrong, said in (
        ("layers=7", "multiples of 4"),
        ("energies_gev=[5.0,1.0]", "give a range"),
        ("counts=[1,1,0]", "at least 1"),
    ):
        done = exec_pipeline("gan3d", wrong, f"run_dir={tmp_path}/run", check=False)
        assert done.returncode == 1
        assert said in done.stderr
