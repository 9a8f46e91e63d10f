"""Random faults against real training runs: is a checkpoint ever lost, a rank ever left hanging, a resume ever wrong?

    python benchmarks/faults.py --faults 1000 --output benchmarks/faults.md

A small GPT is trained on one or two ranks (gloo), with synchronous or asynchronous checkpoints every third step. Each
run is broken again and again, resumed each time, and in the end compared with the run that nothing disturbed. The
ranks are forked from a process that has loaded PyTorch, so that most of the time goes to training and faults. The
full disk is a real file system of a few megabytes (tmpfs; root is needed). The tracker that is down is an MLflow
server that takes connections and never answers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GLOO_SOCKET_IFNAME"] = "lo"

from rich.progress import Progress

from gnomon.errors import CheckpointError, GnomonError
from gnomon.runtime.versions import cpu_model, package_versions
from gnomon.train import checkpoint_files as files
from gnomon.train.callbacks import Callback
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer

NUM_STEPS = 30
EVERY = 3
STEP_S = 0.004  # a step waits so long, so that faults fall on all parts of a run
HANG_S = 60.0
GRACE_S = 1.0
DISK_BYTES = 6 * 2**20
DISK_RUNS = 0.04  # of all runs; each of these meets up to twelve full disks
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
KINDS = {"kill": 40, "signal": 20, "truncate": 20, "disk full": 10, "second run": 10, "tracker down": 5}


class Slow(Callback):
    """Makes a step long enough to be hit."""

    def on_step_end(self, trainer, loss) -> None:
        time.sleep(STEP_S)


@dataclass
class Tally:
    """What was seen of one kind of fault."""

    injected: int = 0
    missed: int = 0
    slowest_exit_s: float = 0.0
    hangs: int = 0
    lost: int = 0
    wrong: int = 0


@dataclass
class Run:
    """One run directory on its way to NUM_STEPS, through as many launches as it takes."""

    path: Path
    ranks: int
    asynchronous: bool
    tracker: str | None = None
    newest: int = 0
    faults: list[str] = field(default_factory=list)

    def config(self) -> GPTTrainingConfig:
        return GPTTrainingConfig.from_mapping(
            {
                "run_dir": str(self.path / "run"),
                "num_steps": NUM_STEPS,
                "log_every": 1,
                "eval_every": 10,
                "eval_batches": 2,
                "checkpoint_every": EVERY,
                "keep_checkpoints": 3,
                "async_checkpoints": self.asynchronous,
                "ema_decay": 0.9,
                "device": "cpu",
                "progress": False,
                "resume": (self.path / "run").exists(),
                "model": {
                    "name": "tiny", "vocab_size": 256, "hidden_size": 32, "num_layers": 2, "num_heads": 2,
                    "max_seq_len": 64,
                },
                "layout": {"dp": self.ranks},
                "workload": {"seq_len": 32, "global_batch": 8, "micro_batch": 4},
                "data": {"root": str(self.path.parent / "text"), "pattern": "*.txt"},
                **({"trackers": [self.tracker_settings()]} if self.tracker else {}),
            }
        )  # fmt: skip

    def tracker_settings(self) -> dict[str, object]:
        return {"name": "mlflow", "tracking_uri": self.tracker, "close_timeout_s": 2.0}

    @property
    def checkpoints(self) -> Path:
        return self.path / "run" / "checkpoints"

    def good_steps(self) -> list[int]:
        """Return the steps of the checkpoints that are complete and as they were written, newest first."""
        good = []
        for path in files.list_checkpoints(self.checkpoints):
            with contextlib.suppress(CheckpointError):
                good.append(files.read_state(path)["step"])
        return good

    def progress(self) -> int:
        """Return the step of the last row of metrics.jsonl, 0 without any."""
        try:
            last = (self.path / "run" / "metrics.jsonl").read_bytes().splitlines()[-1]
            return int(json.loads(last)["step"])
        except (OSError, IndexError, ValueError, KeyError):
            return 0

    def output(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.path.glob("rank-[0-9].log")))

    def curve(self) -> list[tuple[object, ...]]:
        rows = map(json.loads, (self.path / "run" / "metrics.jsonl").read_text().splitlines())
        return [(row["step"], row.get("loss"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]


def launch(run: Run, suffix: str = "") -> list[int]:
    """Fork the ranks of a run and return their process ids."""
    config = run.config()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(run.ranks):
        log = run.path / f"rank-{rank}{suffix}.log"
        log.unlink(missing_ok=True)  # a rank that a fault ends before it opens its log has said nothing
        pid = os.fork()
        if pid == 0:
            _rank_main(config, rank, run.ranks, port, log)
        pids.append(pid)
    return pids


def _rank_main(config: GPTTrainingConfig, rank: int, ranks: int, port: int, log: Path) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if ranks > 1:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "faults",
            }  # fmt: skip
        trainer = GPTTrainer(config)
        trainer.callbacks.append(Slow())
        trainer.execute()
        code = 0
    except GnomonError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        code = error.exit_code
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def wait(pids: list[int]) -> tuple[list[int], float]:
    """Return the exit codes of the ranks (None of one that hangs and was killed) and the seconds it took.

    As torchrun does, it sends SIGTERM to the ranks that are left when one has failed; GRACE_S later than torchrun.
    """
    started, codes = time.monotonic(), dict.fromkeys(pids)
    failed_s = None
    while None in codes.values() and time.monotonic() - started < HANG_S:
        left = [pid for pid, code in codes.items() if code is None]
        for pid in left:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if failed_s is None and any(codes.values()):
            failed_s = time.monotonic()
        if failed_s is not None and time.monotonic() - failed_s > GRACE_S:
            failed_s = math.inf  # once is enough
            for pid in [pid for pid, code in codes.items() if code is None]:
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.002)
    took_s = time.monotonic() - started
    for pid in [pid for pid, code in codes.items() if code is None]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return list(codes.values()), took_s


def wait_for_step(run: Run, pids: list[int], step: int) -> bool:
    """Wait until the run has logged `step`; return False if a rank ends before."""
    deadline = time.monotonic() + HANG_S
    while run.progress() < step and time.monotonic() < deadline:
        for pid in pids:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
        time.sleep(0.002)
    return True


class Soak:
    """Draws faults, injects them and keeps the tally."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.dice = random.Random(seed)
        self.tallies = {kind: Tally() for kind in KINDS}
        self.problems: list[str] = []
        self.finished = 0
        self.count = 0
        self.references = {}
        (folder / "text").mkdir()
        (folder / "text" / "text.txt").write_text(Path(argparse.__file__).read_text(encoding="utf-8"))
        self.preload()
        self.mute = socket.create_server(("127.0.0.1", 0), backlog=64)  # takes connections, never answers
        for ranks in (1, 2):
            reference = self.new_run(ranks)
            codes, _ = wait(launch(reference))
            assert set(codes) == {0}, reference.output()
            self.references[ranks] = reference.curve()

    def preload(self) -> None:
        """Import what a run imports on its way, so that no fork has to; a child that has done a run lists it."""
        run = self.new_run(1)
        run.asynchronous = True
        listing = self.folder / "modules.txt"
        pid = os.fork()
        if pid == 0:
            with contextlib.redirect_stdout(io.StringIO()):
                GPTTrainer(run.config()).execute()
            listing.write_text("\n".join(sys.modules))
            os._exit(0)
        os.waitpid(pid, 0)
        for name in listing.read_text().splitlines():
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    @property
    def injected(self) -> int:
        return sum(tally.injected for tally in self.tallies.values())

    def new_run(self, ranks: int | None = None) -> Run:
        self.count += 1
        path = self.folder / f"run-{self.count}"
        path.mkdir()
        return Run(path, ranks or self.dice.choice((1, 2)), bool(self.dice.getrandbits(1)))

    def until(self, faults: int, tick: Callable[[int], None]) -> None:
        """Break runs until so many faults were injected."""
        while self.injected < faults:
            run = self.new_run()
            kinds = [kind for kind in KINDS if kind != "disk full"]
            has_disk = self.dice.random() < DISK_RUNS
            with small_disk(run.path) if has_disk else contextlib.nullcontext():
                self.one_run(run, ["disk full"] if has_disk else kinds)
            shutil.rmtree(run.path, ignore_errors=True)
            tick(self.injected)

    def one_run(self, run: Run, kinds: list[str]) -> None:
        for _ in range(12):
            kind = self.dice.choices(kinds, [KINDS[kind] for kind in kinds])[0]
            if self.attempt(run, kind):
                self.check_end(run, kind)
                return
        codes, _ = wait(launch(run))  # enough; let it come to its end
        if set(codes) == {0}:
            self.check_end(run, "kill")
        else:
            self.wrong(run, "kill", f"undisturbed, it ended with {codes}")

    def attempt(self, run: Run, kind: str) -> bool:
        """Launch the run, break it, and look at what is left; return True when it came to its end."""
        tally = self.tallies[kind]
        run.tracker = f"http://127.0.0.1:{self.mute.getsockname()[1]}" if kind == "tracker down" else None
        before = run.good_steps()
        if kind == "truncate":
            if len(before) < 2:
                return False
            before = self.truncate(run, before)
        pids = launch(run)
        hit = self.inject(run, kind, pids)
        codes, took_s = wait(pids)
        free_disk(run)
        run.faults.append(kind)
        tally.injected += hit
        tally.missed += not hit
        tally.slowest_exit_s = max(tally.slowest_exit_s, took_s)
        if None in codes:
            tally.hangs += 1
            self.problems.append(f"{kind}: hang, {run.faults}\n{run.output()[-2000:]}")
        self.check_resume(run, kind, before)
        self.check_checkpoints(run, kind, before)
        return set(codes) == {0}

    def inject(self, run: Run, kind: str, pids: list[int]) -> bool:
        """Do the harm at a random moment; return False if the run was over before."""
        if kind in ("truncate", "tracker down"):
            return True
        if self.dice.random() < 0.15:
            time.sleep(self.dice.uniform(0.0, 0.3))  # while it starts
        elif not wait_for_step(run, pids, self.dice.randint(run.progress(), NUM_STEPS)):
            return False
        time.sleep(self.dice.uniform(0.0, 0.03))
        victim = self.dice.choice(pids)
        if kind == "kill":
            os.kill(victim, signal.SIGKILL)
        elif kind == "signal":
            os.kill(victim, self.dice.choice(STOP_SIGNALS))
        elif kind == "disk full":
            fill_disk(run)
        else:
            self.second_run(run)
        return True

    def second_run(self, run: Run) -> None:
        if not (run.path / "run" / ".lock").exists():
            return
        other = Run(run.path, run.ranks, run.asynchronous)
        pids = launch(other, suffix="-second")
        codes, _ = wait(pids)
        if None in codes:
            self.tallies["second run"].hangs += 1
            self.problems.append(f"second run: hang\n{run.output()[-2000:]}")

    def truncate(self, run: Run, good: list[int]) -> list[int]:
        """Damage a random file of the newest checkpoint; return the good steps that are left."""
        newest = files.checkpoint_path(run.checkpoints, good[0])
        victim = self.dice.choice([path for path in newest.iterdir() if path.stat().st_size])
        size = victim.stat().st_size
        how = self.dice.choice(("truncate", "flip", "delete"))
        if how == "truncate":
            os.truncate(victim, self.dice.randrange(size))
        elif how == "delete":
            victim.unlink()
        else:
            data = bytearray(victim.read_bytes())
            data[self.dice.randrange(size)] ^= 1 << self.dice.randrange(8)
            victim.write_bytes(data)
        left = run.good_steps()
        if good[0] in left:  # the bit was in a part of state.json that says nothing, such as the number of a seed
            victim.unlink()
        return run.good_steps()

    def check_resume(self, run: Run, kind: str, before: list[int]) -> None:
        """A launch must have continued from the newest good checkpoint that there was.

        Where a second run began first, the one that waited for it continues from what that one saved.
        """
        text = run.output()
        found = re.search(r"continues from step (\d+) ", text)
        if kind == "second run" and found and int(found[1]) > max(before, default=0):
            before = [step for step in run.good_steps() if step == int(found[1])]
        expected = f"continues from step {before[0]} " if before else "starts from step 0"
        if ("continues from step" in text or "starts from step" in text) and expected not in text:
            self.wrong(run, kind, f"expected '{expected}'")

    def check_checkpoints(self, run: Run, kind: str, before: list[int]) -> None:
        """The newest good checkpoint may not be older than before."""
        after = run.good_steps()
        if before and (not after or after[0] < before[0]):
            self.tallies[kind].lost += 1
            self.problems.append(f"{kind}: lost checkpoint, {before} -> {after}, {run.faults}\n{run.output()[-2000:]}")

    def check_end(self, run: Run, kind: str) -> None:
        """The finished run must have the numbers of the undisturbed one, bit for bit."""
        self.finished += 1
        found, expected = run.curve(), self.references[run.ranks]
        if found != expected:
            at = next((a for a, b in zip(found, expected, strict=False) if a != b), f"{len(found)} rows")
            self.wrong(run, kind, f"the curve differs at {at}")

    def wrong(self, run: Run, kind: str, what: str) -> None:
        self.tallies[kind].wrong += 1
        self.problems.append(f"{kind}: {what}; ranks={run.ranks} {run.faults}\n{run.output()[-2000:]}")


@contextlib.contextmanager
def small_disk(path: Path):
    """Mount a file system of DISK_BYTES on `path`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill_disk(run: Run) -> None:
    with contextlib.suppress(OSError), (run.path / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(2**12))


def free_disk(run: Run) -> None:
    (run.path / "filler").unlink(missing_ok=True)


def render(soak: Soak, took_s: float) -> str:
    versions = package_versions()
    rows = [
        f"| {kind} | {t.injected} | {t.hangs} | {t.lost} | {t.wrong} | {t.slowest_exit_s:.1f} |"
        for kind, t in soak.tallies.items()
    ]
    total = Counter()
    for t in soak.tallies.values():
        total.update(injected=t.injected, hangs=t.hangs, lost=t.lost, wrong=t.wrong)
    return "\n".join(
        [
            "# Faults",
            "",
            "`python benchmarks/faults.py --faults 1000 --output benchmarks/faults.md`",
            "",
            f"{total['injected']} random faults in {took_s / 60:.0f} min against {soak.count} runs of {NUM_STEPS} "
            f"steps on 1 or 2 ranks, a checkpoint every {EVERY} steps, half of them asynchronous; {soak.finished} runs "
            "came to their end and were compared with an undisturbed run bit for bit: loss, gradient norm and "
            f"evaluation loss of every step. {cpu_model()}, PyTorch {versions.get('torch')}.",
            "",
            "| fault | injected | hangs (> 60 s) | lost checkpoints | wrong resumes | slowest exit (s) |",
            "|---|---|---|---|---|---|",
            *rows,
            f"| all | {total['injected']} | {total['hangs']} | {total['lost']} | {total['wrong']} | |",
            "",
            "- kill: SIGKILL to a random rank; signal: SIGTERM, SIGINT or SIGUSR2 to one rank.",
            "- truncate: a random file of the newest checkpoint is cut, deleted or has one bit flipped.",
            f"- disk full: the run lies on a file system of {DISK_BYTES // 2**20} MiB that is filled to the last byte.",
            "- second run: another process starts in the same run directory.",
            "- tracker down: metrics go to an MLflow server that takes connections and never answers.",
            f"- When a rank has failed, the others get SIGTERM after {GRACE_S:.0f} s, as from torchrun.",
            "- The slowest exit counts from the fault to the end of all ranks; a run that survives ends at its last "
            "step.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        soak = Soak(Path(folder), arguments.seed)
        task = progress.add_task("faults", total=arguments.faults)
        try:
            soak.until(arguments.faults, lambda done: progress.update(task, completed=done))
        finally:
            text = render(soak, time.monotonic() - started)
            if arguments.output:
                arguments.output.write_text(text, encoding="utf-8")
    print(text)
    for problem in soak.problems:
        print("PROBLEM", problem)
    raise SystemExit(bool(soak.problems))


if __name__ == "__main__":
    main()
