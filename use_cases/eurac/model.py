"""The network that forecasts a catchment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORGET_BIAS = 3.0  # a memory of weeks from the start (Kratzert et al. 2018, doi:10.5194/hess-22-6005-2018)


class CatchmentLSTM(nn.Module):
    """Weather (batch, days, inputs) to targets (batch, predicted_days, outputs) of the last days."""

    def __init__(self, predicted_days: int, hidden: int = 32, inputs: int = 3, outputs: int = 2) -> None:
        super().__init__()
        self.predicted_days = predicted_days
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)
        with torch.no_grad():
            self.lstm.bias_hh_l0[hidden : 2 * hidden] = FORGET_BIAS

    def forward(self, weather: Tensor) -> Tensor:
        """Return the targets; the days before them only bring the memory into step."""
        return self.head(self.lstm(weather)[0][:, -self.predicted_days :])
