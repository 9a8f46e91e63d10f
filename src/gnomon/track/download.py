"""The histories of all metrics of an MLflow experiment, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from gnomon.errors import ConfigError, GnomonError, did_you_mean

COLUMNS = ("run_id", "metric_name", "value", "step", "timestamp")


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of one metric; `timestamp` is Unix time in milliseconds."""

    run_id: str
    metric_name: str
    value: float
    step: int
    timestamp: int


def metric_points(tracking_uri: str, experiment_name: str) -> Iterator[MetricPoint]:
    """Yield every point of every metric of every run, run by run, in the order of steps.

    Raises ConfigError for an experiment that is not there, and GnomonError for a store that does not answer.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise ConfigError("This needs mlflow, which is not installed: pip install 'gnomon[track]'.") from None
    client = MlflowClient(tracking_uri)
    try:
        experiment = client.get_experiment_by_name(experiment_name)
        if experiment is None:
            names = [found.name for found in client.search_experiments()]
            raise ConfigError(
                f"There is no experiment '{experiment_name}' at {tracking_uri}. {did_you_mean(experiment_name, names)}"
            )
        token: str | None = None
        while True:
            page = client.search_runs([experiment.experiment_id], page_token=token, max_results=1000)
            for run in page:
                for name in sorted(run.data.metrics):
                    history = client.get_metric_history(run.info.run_id, name)
                    for point in sorted(history, key=lambda point: (point.step, point.timestamp)):
                        yield MetricPoint(run.info.run_id, name, point.value, point.step, point.timestamp)
            token = page.token
            if not token:
                return
    except MlflowException as error:
        raise GnomonError(f"MLflow at {tracking_uri} does not answer: {error.message.splitlines()[0]}") from error


def write_csv(tracking_uri: str, experiment_name: str, path: Path) -> int:
    """Write all points to a CSV file with the columns of `COLUMNS`; return how many there are."""
    import csv

    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for point in metric_points(tracking_uri, experiment_name):
            writer.writerow(astuple(point))
            count += 1
    return count
