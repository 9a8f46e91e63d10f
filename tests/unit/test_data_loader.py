"""The resumable loader: the same batches for any ranks, workers and interruptions."""

import json
import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset, Subset

from gnomon.data.batch_sampler import GlobalBatchSampler
from gnomon.data.fetch import PaddedBatch
from gnomon.data.resumable import ResumableLoader, create_loader
from gnomon.errors import DataError

MAX_EXAMPLES = 40


class Numbers(Dataset):
    draws_random_numbers = False

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


class Noisy(Numbers):
    draws_random_numbers = True

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


class Failing(Numbers):
    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5:
            raise DataError("Sample 5 is damaged. Delete it.")
        return torch.tensor(index)


class Ragged(Numbers):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(index + 1)


@st.composite
def cases(draw):
    micro_batch, blocks = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 6]))
    global_batch = micro_batch * blocks
    last = draw(st.sampled_from(["drop", "pad"]))
    least = global_batch if last == "drop" else 1
    divisors = [ranks for ranks in range(1, blocks + 1) if blocks % ranks == 0]
    return {
        "length": draw(st.integers(least, 4 * global_batch)),
        "global_batch": global_batch,
        "micro_batch": micro_batch,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "shuffle": draw(st.booleans()),
        "last": last,
    }, divisors


def loader(case, rank=0, world_size=1, dataset=Numbers, **changes) -> ResumableLoader:
    options = {key: value for key, value in case.items() if key != "length"}
    return create_loader(dataset(case["length"]), rank=rank, world_size=world_size, **{**options, **changes})


def real(batch) -> list[int]:
    return (batch.samples[batch.valid] if isinstance(batch, PaddedBatch) else batch).tolist()


def steps(loaders: list[ResumableLoader], count: int) -> list[list[list[int]]]:
    """Take `count` optimizer steps on all ranks, over as many epochs as it takes: the micro-batches of each step."""

    def endless(one):
        while True:
            yield from one

    streams = [endless(one) for one in loaders]
    accumulation = loaders[0].sampler.accumulation
    return [[real(next(s)) for s in streams for _ in range(accumulation)] for _ in range(count)]


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(cases())
def test_an_epoch_deals_each_sample_exactly_once_over_the_ranks(drawn):
    case, divisors = drawn
    for world_size in divisors:
        for epoch in range(2):
            ranks = [loader(case, rank, world_size) for rank in range(world_size)]
            for one in ranks:
                one.set_epoch(epoch)
            batches = [list(one) for one in ranks]
            assert len({len(b) for b in batches}) == 1
            assert all(len(b) == len(one) for b, one in zip(batches, ranks, strict=True))
            seen = sorted(index for b in batches for batch in b for index in real(batch))
            if case["last"] == "pad":
                assert seen == list(range(case["length"]))
                assert all(len(batch.samples) == case["micro_batch"] for b in batches for batch in b)
            else:
                assert len(seen) == len(set(seen)) == case["length"] // case["global_batch"] * case["global_batch"]


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(cases(), st.data())
def test_any_number_of_ranks_sees_the_same_micro_batches_in_each_step(drawn, data):
    case, divisors = drawn
    world_size = data.draw(st.sampled_from(divisors))
    count = 2 * loader(case).sampler.steps_per_epoch + 1
    assert steps([loader(case, r, world_size) for r in range(world_size)], count) == steps([loader(case)], count)


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(cases(), st.data())
def test_a_run_that_resumes_on_other_ranks_continues_as_if_nothing_had_happened(drawn, data):
    case, divisors = drawn
    before, after = data.draw(st.integers(0, 9)), data.draw(st.integers(1, 6))
    first, second = data.draw(st.sampled_from(divisors)), data.draw(st.sampled_from(divisors))
    expected = steps([loader(case)], before + after)[before:]
    ranks = [loader(case, rank, first) for rank in range(first)]
    steps(ranks, before)
    states = [json.loads(json.dumps(one.state_dict())) for one in ranks]
    assert all(state == states[0] for state in states)
    resumed = [loader(case, rank, second) for rank in range(second)]
    for one in resumed:
        one.load_state_dict(states[0])
        assert one.state_dict() == states[0]
    assert steps(resumed, after) == expected


CASE = {"length": 22, "global_batch": 6, "micro_batch": 2, "seed": 3, "shuffle": True, "last": "drop"}


def test_workers_that_fetch_ahead_do_not_move_the_state_and_change_nothing():
    expected = steps([loader(CASE, dataset=Noisy)], 8)
    with_workers = loader(CASE, dataset=Noisy, num_workers=2)
    assert steps([with_workers], 4) == expected[:4]
    assert with_workers.state_dict() == {"epoch": 1, "position": 6, "num_samples": 22, "seed": 3, "shuffle": True}
    resumed = loader(CASE, dataset=Noisy, num_workers=1)
    resumed.load_state_dict(with_workers.state_dict())
    assert steps([resumed], 4) == expected[4:]
    # the same loader, set back while its workers have batches in flight
    with_workers.load_state_dict({**with_workers.state_dict(), "epoch": 0, "position": 6})
    assert steps([with_workers], 4) == expected[1:5]


def test_what_a_dataset_draws_depends_on_the_sample_alone_and_the_model_draws_as_before():
    case = {**CASE, "micro_batch": 6}
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    one = np.concatenate(steps([loader(case, dataset=Noisy)], 3)).reshape(-1, 4)
    drawn = torch.rand(()).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    assert drawn == (torch.rand(()).item(), np.random.rand(), random.random())
    three = np.concatenate(steps([loader(CASE, r, 3, Noisy) for r in range(3)], 3)).reshape(-1, 4)
    np.testing.assert_array_equal(one, three)
    assert len(np.unique(one[:, 1:])) == one[:, 1:].size
    again = loader(case, dataset=Noisy)
    again.set_epoch(1)
    other = {row[0]: row for row in next(iter(again)).tolist()}
    shared = [row for row in one.tolist() if row[0] in other]
    assert shared
    assert all(row[1:] != other[row[0]][1:] for row in shared)


def test_a_subset_of_a_random_dataset_is_still_seeded_per_sample():
    subset = Subset(Noisy(30), range(4, 26))
    alone = create_loader(subset, global_batch=4, micro_batch=4, seed=1)
    ranks = [create_loader(subset, global_batch=4, micro_batch=2, seed=1, rank=r, world_size=2) for r in range(2)]
    torch.testing.assert_close(next(iter(alone)), torch.cat([next(iter(one)) for one in ranks]), rtol=0, atol=0)


def test_the_state_within_a_step_is_the_start_of_the_step():
    one = loader(CASE)
    batches = iter(one)
    for expected in (0, 0, 6, 6, 6, 12):
        next(batches)
        assert one.state_dict()["position"] == expected


def test_an_iteration_that_was_overtaken_says_so():
    one = loader(CASE)
    old = iter(one)
    next(old)
    one.set_epoch(0)
    with pytest.raises(DataError, match="set to another position"):
        next(old)


def test_padding_is_marked_and_taken_from_the_start_of_the_order():
    case = {**CASE, "length": 7, "shuffle": False, "last": "pad"}
    batches = list(loader(case, 1, 3))
    assert [b.indices.tolist() for b in batches] == [[2, 3], [1, 2]]
    assert [b.valid.tolist() for b in batches] == [[True, True], [False, False]]
    assert len(list(loader({**case, "length": 1}))) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_the_dataset_arrives_as_it_is(num_workers):
    with pytest.raises(DataError) as caught:
        list(loader(CASE, dataset=Failing, shuffle=False, num_workers=num_workers))
    assert str(caught.value) == "Sample 5 is damaged. Delete it."


def test_samples_of_different_shapes_are_named():
    with pytest.raises(DataError, match="do not fit together: stack expects each tensor to be equal size"):
        list(loader(CASE, dataset=Ragged))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch": 4}, "global_batch=6 does not divide by micro_batch=4 x 1 rank"),
        ({"global_batch": 24}, "the dataset has only 22 samples"),
        ({"micro_batch": 0}, "micro_batch=0; set it to a whole number"),
        ({"rank": 3}, "rank=3, but ranks count from 0 to 0"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"last": "pads"}, "last='pads' is unknown. Did you mean 'pad'"),
        ({"num_workers": -1}, "num_workers=-1; set it to 0 or more"),
    ],
)
def test_settings_that_make_no_batches_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        loader(CASE, **changes)


def test_data_without_samples_or_random_access_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(DataError, match="no samples at all"):
        create_loader([], global_batch=1, micro_batch=1)
    with pytest.raises(DataError, match="Stream has no random access"):
        create_loader(Stream(), global_batch=1, micro_batch=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 21}, "made with num_samples=21, and now it is 22"),
        ({"seed": 4}, "made with seed=4"),
        ({"position": 4}, "after 4 samples of the epoch, which is not a whole number"),
        ({"position": 18}, "outside the data, of which an epoch has 3 steps"),
    ],
)
def test_a_state_of_other_data_is_refused(changes, message):
    one = loader(CASE)
    with pytest.raises(DataError, match=message):
        one.load_state_dict({**one.state_dict(), **changes})


def test_the_order_of_a_seed_never_changes():
    sampler = GlobalBatchSampler(10, 4, 2, seed=7)
    assert [request.indices for request in sampler.requests()] == [[8, 0], [7, 1], [3, 6], [2, 4]]


def test_making_a_loader_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(loader(CASE)))
