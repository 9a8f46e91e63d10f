"""A synthetic catchment: its water balance, and how well its discharge is forecast."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st


def test_water_is_neither_made_nor_lost(import_module):
    bucket = import_module("eurac", "bucket")

    @given(seed=st.integers(0, 2**32 - 1), days=st.integers(1, 800))
    def balances(seed, days):
        generator = np.random.default_rng(seed)
        catchment = bucket.draw_catchment(generator)
        weather = bucket.draw_weather(catchment, days, generator)
        response = bucket.simulate(catchment, weather)
        stored = np.diff(response.storage, prepend=bucket.initial_storage(catchment))
        lost = response.discharge + response.evaporation
        np.testing.assert_allclose(weather.precipitation, lost + stored, atol=1e-9)
        assert min(response.discharge.min(), response.evaporation.min(), response.soil_moisture.min()) >= 0
        assert response.soil_moisture.max() <= catchment.field_capacity_mm
        assert (response.evaporation <= weather.evaporation_demand).all()

    balances()


def test_snow_waits_for_warmth(import_module):
    bucket = import_module("eurac", "bucket")
    frost, thaw = np.full(30, -5.0), np.full(30, 5.0)
    weather = bucket.Weather(
        precipitation=np.repeat([4.0, 0.0], 30),
        temperature=np.concatenate([frost, thaw]),
        evaporation_demand=np.zeros(60),
    )
    response = bucket.simulate(bucket.Catchment(melt_mm_per_degree_day=3.0), weather)
    assert response.discharge[:30].max() == 0
    assert response.discharge[30:].sum() > 10
    assert np.diff(response.soil_moisture[:30]).max() == 0


def test_every_test_day_is_forecast_once_from_weather_before_it(import_module):
    dataloader = import_module("eurac", "dataloader")
    getter = dataloader.BucketGetter(years=10, spin_up_days=100, predicted_days=50)
    _, validation, test = getter.execute()
    record = dataloader.make_record(10, 0)
    for part, begin in ((validation, record.train_end), (test, record.validation_end)):
        weather, targets = part.tensors
        days = len(targets) * 50
        np.testing.assert_allclose(targets.reshape(days, 2), record.targets[begin : begin + days], rtol=1e-5)
        np.testing.assert_allclose(weather[0], record.weather[begin - 100 : begin + 50], rtol=1e-5)
    assert record.validation_end + days > len(record.targets) - 50


def test_the_network_forecasts_better_than_a_regression(exec_pipeline, last_row, import_module, tmp_path):
    exec_pipeline("eurac", f"run_dir={tmp_path}/run")
    row = last_row(tmp_path / "run", "test_nse_discharge")
    assert row["test_nse_discharge"] >= 0.85
    assert row["test_nse_soil_moisture"] >= 0.98
    trivial = import_module("eurac", "baseline").baselines()
    assert row["test_nse_discharge"] > max(each["discharge"] for each in trivial.values()) + 0.1


@pytest.mark.torch_dist
def test_two_ranks_learn_what_one_does(exec_pipeline, last_row, tmp_path):
    for ranks in ("1", "2"):
        small = ["years=12", "epochs=1", "predicted_days=60", "training_pipeline.steps.train.config.warmup_steps=0"]
        exec_pipeline("eurac", "--ranks", ranks, *small, f"run_dir={tmp_path}/{ranks}")
    one, two = (last_row(tmp_path / ranks, "test_nse_discharge") for ranks in ("1", "2"))
    for figure in ("test_loss", "test_nse_discharge", "test_nse_soil_moisture"):
        assert two[figure] == pytest.approx(one[figure], rel=1e-4)


def test_a_period_too_short_is_said(exec_pipeline, tmp_path):
    done = exec_pipeline("eurac", "years=2", f"run_dir={tmp_path}/run", check=False)
    assert done.returncode == 1
    assert "predicted_days=240, but of years=2 the test part has only 109 days" in done.stderr
