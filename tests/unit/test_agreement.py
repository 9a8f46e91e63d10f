"""What ranks decide together, with ranks that are played by one process."""

import warnings

import torch

from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.signals import StopFlag
from gnomon.runtime.warnings import show_on_stdout
from gnomon.strategy.collectives import AloneCollectives
from gnomon.strategy.single import SingleStrategy
from gnomon.train import agreement
from gnomon.train.agreement import StopAgreement


class TwoRanks(SingleStrategy):
    """This rank, and another one that takes a second per step and is told to stop when `other_stops` is set."""

    def __init__(self) -> None:
        super().__init__(RankEnvironment(), torch.device("cpu"))
        self.environment = RankEnvironment(world_size=2, local_world_size=2, source="torchrun")
        self.other_stops = False
        self.step_time_s = 1.0
        self.questions = 0

    @property
    def collectives(self):
        return TwoRanksCollectives(self)


class TwoRanksCollectives(AloneCollectives):
    def __init__(self, ranks: TwoRanks) -> None:
        self.ranks = ranks

    def all_reduce(self, value: torch.Tensor, op: str = "mean") -> torch.Tensor:
        self.ranks.questions += 1
        return torch.stack([value[0] + float(self.ranks.other_stops), torch.tensor(self.ranks.step_time_s)]) / 2

    def gather_objects(self, value):
        return [value, "SIGTERM" if self.ranks.other_stops else None]


def test_a_rank_alone_only_looks_at_its_flag():
    flag = StopFlag()
    stop = StopAgreement(SingleStrategy(RankEnvironment(), torch.device("cpu")), flag, step=0)
    assert not stop.reached(1)
    flag.signal_name = "SIGINT"
    assert stop.reached(2)
    assert stop.signal_name() == "SIGINT"


def test_several_ranks_ask_at_steps_that_all_compute_alike_about_once_a_second():
    ranks = TwoRanks()
    ranks.step_time_s = 2 * agreement.SECONDS_BETWEEN_QUESTIONS / 8
    stop = StopAgreement(ranks, StopFlag(), step=100)
    assert [step for step in range(101, 132) if _asks(ranks, stop, step)] == [101, 109, 117, 125]


def _asks(ranks: TwoRanks, stop: StopAgreement, step: int) -> bool:
    before = ranks.questions
    assert not stop.reached(step)
    return ranks.questions > before


def test_one_rank_that_is_told_to_stop_stops_all():
    ranks = TwoRanks()
    stop = StopAgreement(ranks, StopFlag(), step=0)
    ranks.other_stops = True
    assert stop.reached(1)
    assert stop.signal_name() == "SIGTERM"


def test_our_warnings_are_shown_to_the_user_and_others_are_logged(capsys):
    from gnomon.errors import CheckpointWarning

    with show_on_stdout():
        warnings.showwarning(CheckpointWarning("it is damaged."), CheckpointWarning, "file.py", 3)
        warnings.showwarning(FutureWarning("deprecated"), FutureWarning, "file.py", 3)
    captured = capsys.readouterr()
    assert captured.out == "CheckpointWarning: it is damaged.\n"
    assert captured.err.startswith("file.py:3: FutureWarning: deprecated")
