"""Components: the steps of work, usable alone or in a pipeline. Importing this is cheap."""

from gnomon.component.adapter import Adapter
from gnomon.component.base import Component, settings_of
from gnomon.component.monitor import monitor, monitored
from gnomon.component.roles import DataGetter, DataProcessor, Predictor, Saver
from gnomon.component.splitter import DataSplitter, OrderedSplitter, RandomSplitter
from gnomon.component.standalone import main

__all__ = [
    "Adapter",
    "Component",
    "DataGetter",
    "DataProcessor",
    "DataSplitter",
    "OrderedSplitter",
    "Predictor",
    "RandomSplitter",
    "Saver",
    "main",
    "monitor",
    "monitored",
    "settings_of",
]
