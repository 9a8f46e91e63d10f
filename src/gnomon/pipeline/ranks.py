"""A whole pipeline on several ranks: each runs all of its steps, and the trainers among them work together."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gnomon.config import select, to_yaml
from gnomon.errors import RankFailedError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.pipeline.job import Job, JobResult

WORKER = "gnomon.pipeline.rank_worker"
RESULT_FILE = "result.json"


def run_job_on_ranks(
    job: Job,
    ranks: int,
    pipe_key: str | None = None,
    steps: str | None = None,
    trusted: Sequence[str] = (),
    run: Callable[[RankJob], None] = run_ranks,
) -> JobResult:
    """Run the pipeline of a job on `ranks` processes started by `run` and return what rank 0 reported.

    The output of the last step stays with the ranks; the result holds what JSON can say of it. The logs of the ranks
    are copied to the run directory when it ends, and also stay where they were if a rank has died. Raises what `run`
    raises, among it the GnomonError that ended a rank.
    """
    folder = Path(tempfile.mkdtemp(prefix="gnomon-ranks-"))
    keep = False
    try:
        (folder / "config.yaml").write_text(to_yaml(job.config), encoding="utf-8")
        request = {"pipe_key": pipe_key, "steps": steps, "trusted": list(trusted), "overrides": job.overrides}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        run(RankJob(module=WORKER, arguments=(str(folder),), log_dir=folder / "logs", ranks=ranks))
        return JobResult(**json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except RankFailedError:
        keep = True  # its message names a log in this folder
        raise
    finally:
        _copy_logs(folder / "logs", select(job.config, "run_dir"))
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _copy_logs(logs: Path, run_dir: object) -> None:
    if run_dir is None or not Path(str(run_dir)).is_dir():
        return
    for log in logs.glob("*.log"):
        if log.stat().st_size:
            target = Path(str(run_dir), "logs")
            target.mkdir(exist_ok=True)
            with (target / log.name).open("ab") as file:  # a resumed run goes on in the same file
                file.write(log.read_bytes())
