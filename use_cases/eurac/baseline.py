"""What a forecast must beat: the efficiency of trivial forecasts of the test part. `python baseline.py` prints them."""

from __future__ import annotations

import numpy as np
from bucket import Array
from dataloader import TARGETS, make_record

REGRESSION_DAYS = 120


def baselines(years: int = 40, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return {baseline: {target: Nash-Sutcliffe efficiency}} on the test days.

    `persistence` forecasts what was observed the day before, which the network never sees. `regression` is linear in
    the weather of the last 120 days, fitted by least squares to the training days.
    """
    record = make_record(years, seed)
    shape = (len(record.targets), REGRESSION_DAYS * record.weather.shape[1] + 1)
    features = np.ones(shape)  # the last column stays: the constant
    windows = np.lib.stride_tricks.sliding_window_view(record.weather, REGRESSION_DAYS, axis=0)
    features[REGRESSION_DAYS - 1 :, :-1] = windows.reshape(len(windows), -1)
    fitted = slice(REGRESSION_DAYS - 1, record.train_end)
    weights = np.linalg.lstsq(features[fitted], record.targets[fitted], rcond=None)[0]
    test = slice(record.validation_end, None)
    observed = record.targets[test]
    return {
        "persistence": _efficiency(record.targets[record.validation_end - 1 : -1], observed),
        "regression": _efficiency(features[test] @ weights, observed),
    }


def _efficiency(predicted: Array, observed: Array) -> dict[str, float]:
    errors = ((predicted - observed) ** 2).sum(0)
    values = 1.0 - errors / ((observed - observed.mean(0)) ** 2).sum(0)
    return dict(zip(TARGETS, values.tolist(), strict=True))


if __name__ == "__main__":
    print(baselines())
