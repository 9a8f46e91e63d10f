"""MLflow: one run per rank below one run for the training, on a server or in a database file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gnomon.errors import ConfigError
from gnomon.track.base import Item, ItemRejectedError, Kind, NotReadyError, Tracker, unsupported_kind
from gnomon.track.context import TrackerContext
from gnomon.track.materialise import safe_name
from gnomon.track.rows import metrics_of, time_of
from gnomon.track.settings import MLflowSettings

if TYPE_CHECKING:
    from mlflow.entities import Metric

URI_VARIABLE = "MLFLOW_TRACKING_URI"
MAX_METRICS_PER_BATCH = 1000  # of the server
CLIENT_DEFAULTS = {
    # it is tried again by who calls; MLflow's own way would take minutes to say that a server is down
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a run tells nobody but its trackers
}


class MLflowTracker(Tracker):
    """Sends rows in batches, each metric once: MLflow drops a point that it has, and points keep their times.

    The runs are `run_name`, and below it `worker_0 (main)`, `worker_1` and so on. Figures, images, texts, dicts,
    artifacts and models become artifacts under their names; datasets become inputs of the run.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset(
        {"metric", "param", "figure", "image", "text", "dict", "artifact", "model", "dataset"}
    )
    requires = ("mlflow",)
    settings = MLflowSettings

    def __init__(self, settings: MLflowSettings, context: TrackerContext) -> None:
        """Connect and find or make the runs; raise NotReadyError while the leader has not made the parent."""
        for name, value in CLIENT_DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._settings, self._context = settings, context
        leader = context.leader_memory("mlflow")
        if context.rank != context.leader and "parent_run_id" not in leader:
            raise NotReadyError("the leader has not made the run yet")
        self._uri = leader.get("tracking_uri") or tracking_uri(settings, context.run.path)
        if settings.tracking_uri not in (None, self._uri):
            raise ConfigError(
                f"The run was sent to {self._uri} so far, and tracking_uri is {settings.tracking_uri} now. "
                "Set it back; a run is in one place."
            )
        self._client = MlflowClient(self._uri)
        self._run_id = self._open_runs(leader)
        self._metrics: list[Metric] = []
        self._is_open = True

    def log(self, row: Mapping[str, Any]) -> None:
        """Take the numbers of the row; `flush` sends them."""
        from mlflow.entities import Metric

        step, moment_ms = row.get("step") or 0, round(1000 * time_of(row))
        self._metrics += [
            Metric(safe_metric_name(name), value, moment_ms, step) for name, value in metrics_of(row).items()
        ]

    def record(self, item: Item) -> None:
        """Send the item at once."""
        from mlflow.exceptions import MlflowException

        if item.kind not in self.kinds or item.kind == "metric":
            raise unsupported_kind("mlflow", item.kind, self.kinds)
        try:
            self._send(item)
        except MlflowException as error:
            if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise ItemRejectedError(str(error.message)) from None
            raise

    def flush(self) -> None:
        """Send the rows, in as few requests as the server allows."""
        while self._metrics:
            self._client.log_batch(self._run_id, metrics=self._metrics[:MAX_METRICS_PER_BATCH])
            del self._metrics[:MAX_METRICS_PER_BATCH]

    def close(self) -> None:
        """Send what is left and mark the runs as finished, failed or killed: the parent is what its leader is."""
        if not self._is_open:
            return
        self._is_open = False
        self.flush()
        status = self._context.outcome.upper()
        self._client.set_terminated(self._run_id, status)
        if self._context.rank == self._context.leader:
            self._client.set_terminated(self._context.memory["parent_run_id"], status)

    def _send(self, item: Item) -> None:
        client, run_id, path = self._client, self._run_id, artifact_path(item)
        if item.kind == "param":
            from mlflow.entities import Param

            value = item.value if isinstance(item.value, str) else str(item.value)
            client.log_batch(run_id, params=[Param(safe_metric_name(item.name), value)])
        elif item.kind == "text":
            client.log_text(run_id, item.value, f"{path}.txt")
        elif item.kind == "dict":
            client.log_dict(run_id, item.value, f"{path}.json")
        elif item.kind in ("figure", "image"):
            with item.value.open("rb") as file:
                client.log_stream(run_id, file, f"{path}.png")
        elif item.kind == "dataset":
            client.log_inputs(run_id, datasets=[_dataset(item)])
        elif item.value.is_dir():
            client.log_artifacts(run_id, str(item.value), path)
        else:
            client.log_artifact(run_id, str(item.value), path)

    def _open_runs(self, leader: Mapping[str, Any]) -> str:
        """Return the id of this rank's run, made if need be; the parent's too on the leader."""
        memory, rank = self._context.memory, self._context.rank
        if self._uri != default_uri(self._context.run.path):  # which moves with the run directory
            memory["tracking_uri"] = self._uri
        if rank == self._context.leader and "experiment_id" not in memory:
            memory["experiment_id"] = self._experiment()
        experiment = str(leader.get("experiment_id") or memory["experiment_id"])
        if rank == self._context.leader and "parent_run_id" not in memory:
            tags = {"gnomon.uid": self._context.uid}
            if self._settings.parent_run_id:
                tags["mlflow.parentRunId"] = self._settings.parent_run_id
            name = self._settings.run_name or self._context.run.path.resolve().name
            memory["parent_run_id"] = self._find_or_create(experiment, name, tags)
        parent = str(leader.get("parent_run_id") or memory["parent_run_id"])
        if "run_id" not in memory:
            name = f"worker_{rank}{' (main)' * (rank == 0)}"
            memory["run_id"] = self._find_or_create(
                experiment, name, {"gnomon.rank": str(rank), "mlflow.parentRunId": parent}
            )
        for run_id in {memory["run_id"], memory.get("parent_run_id", memory["run_id"])}:
            if self._client.get_run(run_id).info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")  # it was finished, and is resumed
        return str(memory["run_id"])

    def _experiment(self) -> str:
        name = self._settings.experiment_name
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        is_own_file = self._uri == default_uri(self._context.run.path)
        location = (self._context.run.path / "mlartifacts").resolve().as_uri() if is_own_file else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def _find_or_create(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """Return the run with these tags: a sender that died may have made it without saving its id."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([experiment], wanted, max_results=1)
        if found:
            return str(found[0].info.run_id)
        return str(self._client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)


def tracking_uri(settings: MLflowSettings, run_dir: Path) -> str:
    """Return where the runs go: the setting, else MLFLOW_TRACKING_URI, else a database file in the run directory."""
    return settings.tracking_uri or os.environ.get(URI_VARIABLE) or default_uri(run_dir)


def default_uri(run_dir: Path) -> str:
    """Return the URI of the database file of a run directory."""
    return f"sqlite:///{(run_dir / 'mlruns.db').resolve()}"


def safe_metric_name(name: str) -> str:
    """Return `name` with what MLflow does not allow in names replaced by an underscore."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def artifact_path(item: Item) -> str:
    """Return the path of the item among the artifacts: its name, and the step where it has one."""
    parts = [safe_name(part) for part in item.name.split("/") if part]
    return "/".join(parts + ([] if item.step is None else [f"step-{item.step:06}"]))


def _dataset(item: Item) -> Any:
    from mlflow.entities import Dataset, DatasetInput

    described = dict(item.value)
    return DatasetInput(
        dataset=Dataset(
            name=item.name,
            digest=str(described["digest"])[:36],  # as long as MLflow allows
            source_type="gnomon",
            source=json.dumps({"source": described.get("source", "")}),
            profile=json.dumps(described),
        )
    )
