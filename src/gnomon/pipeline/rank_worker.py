"""`python -m gnomon.pipeline.rank_worker FOLDER`: one rank of a pipeline; see `gnomon.pipeline.ranks`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gnomon.component.plain import jsonable
from gnomon.config.resolvers import register_resolvers
from gnomon.launch.rank_errors import report_rank_error
from gnomon.pipeline.job import Job, run_job
from gnomon.pipeline.ranks import RESULT_FILE
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.warnings import show_on_stdout


def main() -> None:
    """Run the pipeline in the folder on the command line; rank 0 writes the result there."""
    with report_rank_error(), show_on_stdout():
        folder = Path(sys.argv[1])
        register_resolvers()
        config = OmegaConf.create((folder / "config.yaml").read_text(encoding="utf-8"))
        assert isinstance(config, DictConfig)  # what `run_job_on_ranks` wrote
        request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        job = Job(config, request["overrides"])
        result = run_job(job, request["pipe_key"], request["steps"], request["trusted"])
        if RankEnvironment.detect().is_main:
            document = {**asdict(replace(result, output=None)), "output": jsonable(result.output)}
            (folder / RESULT_FILE).write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main()
