"""A disturbed detector: its generator, and that cleaning removes the noise and keeps the signals."""

import json

import numpy as np
import pytest

SMALL = ("segments=32", "epochs=1", "width=4", "training_pipeline.steps.train.config.warmup_steps=0")


def test_noise_has_the_design_power(import_module):
    detector = import_module("virgo", "detector")
    rate, samples = detector.SAMPLE_RATE_HZ, 1024
    strain = detector.coloured_noise(400 * samples, np.random.default_rng(0)).reshape(400, samples)
    window = np.hanning(samples)
    power = 2 * (np.abs(np.fft.rfft(strain * window)) ** 2).mean(0) / (rate * (window**2).sum())
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    inside = (frequency > 12) & (frequency < 120)
    ratio = power[inside] / detector.design_psd(frequency[inside])
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert np.abs(ratio - 1).max() < 0.3  # 400 periodograms: 5 % deviation each
    at_100_hz = 10.2e-46 * (1.574**-4.8 + 30 / 17 + 1.04)
    assert detector.design_psd(np.array([100.0]))[0] / at_100_hz == pytest.approx(1)


def test_disturbances_have_the_strengths_that_the_couplings_say(import_module):
    detector = import_module("virgo", "detector")
    strengths = {"ground": 1.5, "mains": 1.0, "sidebands": 1.0, "upconversion": 0.5}
    for name, strength in strengths.items():
        only = detector.Couplings(**{other: strength if other == name else 0.0 for other in strengths})
        stretch = detector.make_stretch(2**17, only, np.random.default_rng(1))
        assert stretch.coupled.std() == pytest.approx(strength, rel=0.1)
        assert (stretch.strain - stretch.coupled).std() == pytest.approx(1, abs=0.06)  # nothing below the cut-off
        assert np.abs(stretch.witnesses.std(1) - 1).max() < 0.1


def test_an_inspiral_rises_as_the_quadrupole_formula_says(import_module):
    """tau(f) = 5/256 (pi f)^(-8/3) (G M / c^3)^(-5/3): 25 suns spend 0.998 s from 20 to 60 Hz."""
    signals = import_module("virgo", "signals")
    rate, samples = 256, 2048
    template = signals.inspiral(25.0, samples)
    assert np.linalg.norm(template) == pytest.approx(1)
    crossings = np.flatnonzero(np.diff(np.sign(template[samples // 2 - rate : samples // 2])))
    middle = (crossings[1:] + crossings[:-1]) / 2 - rate  # samples before the end of the template at 110 Hz
    tau = -middle / rate + signals._time_to_merger(25.0 * signals.SOLAR_MASS_S, 110.0)
    expected = (5 / (256 * tau)) ** 0.375 * (25.0 * signals.SOLAR_MASS_S) ** -0.625 / np.pi
    measured = rate / (2 * np.diff(crossings))
    slow = expected < 40  # above, a sample is too coarse for a half-wave
    assert slow.sum() > 15
    assert np.median(measured[slow] / expected[slow]) == pytest.approx(1, abs=0.05)


def test_cleaning_removes_the_noise_and_keeps_the_signals(exec_pipeline, last_row, import_module, tmp_path):
    done = exec_pipeline("virgo", "--json", "epochs=10", f"run_dir={tmp_path}/run")
    ratio = last_row(tmp_path / "run", "test_noise_ratio")["test_noise_ratio"]
    found = json.loads(done.stdout)["result"]
    assert ratio <= 0.45
    assert found["inspiral"]["snr_gain"] >= 1.6
    assert found["burst"]["snr_gain"] >= 1.1
    assert max(abs(figures["amplitude_bias"]) for figures in found.values()) <= 0.03
    limits = import_module("virgo", "baseline").baselines()
    assert ratio < 0.8 * limits["linear"]["noise_ratio"]
    assert found["inspiral"]["snr_after"] > limits["linear"]["inspiral"]["snr_after"]
    assert found["inspiral"]["snr_after"] < 1.02 * limits["perfect"]["inspiral"]["snr_after"]


@pytest.mark.torch_dist
def test_two_ranks_from_files_learn_what_one_does_from_memory(exec_pipeline, last_row, tmp_path):
    exec_pipeline("virgo", *SMALL, f"run_dir={tmp_path}/one")
    exec_pipeline("virgo", *SMALL, "--ranks", "2", f"folder={tmp_path}/data", f"run_dir={tmp_path}/two")
    one, two = (last_row(tmp_path / name, "test_loss") for name in ("one", "two"))
    for figure in ("test_loss", "test_noise_ratio"):
        assert two[figure] == pytest.approx(one[figure], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test.h5", "train.h5", "validation.h5"]


def test_files_of_other_settings_are_refused(import_module, tmp_path):
    from gnomon.errors import DataError

    dataloader = import_module("virgo", "dataloader")
    first = dataloader.StrainGetter(train=4, validation=4, test=4, folder=str(tmp_path)).execute()
    again = dataloader.StrainGetter(train=4, validation=4, test=4, folder=str(tmp_path)).execute()
    assert [tuple(part[0][0].shape) for part in first] == [(3, 1024)] * 3
    assert (again[2][3][1] == first[2][3][1]).all()
    with pytest.raises(DataError, match=r"was made with .*'seed': 0"):
        dataloader.StrainGetter(train=4, validation=4, test=4, seed=1, folder=str(tmp_path)).execute()
    (tmp_path / "test.h5").unlink()  # another file, because HDF5 knows those that are still open
    (tmp_path / "test.h5").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot be read as an HDF5 file"):
        dataloader.StrainGetter(train=4, validation=4, test=4, folder=str(tmp_path)).execute()
