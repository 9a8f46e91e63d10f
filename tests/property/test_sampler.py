"""The sampler: the batch of a step depends on the seed and the step alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.data.sampler import WindowSampler
from gnomon.errors import DataError


@st.composite
def samplers(draw: st.DrawFn) -> dict[str, int]:
    micro_batch = draw(st.integers(1, 4))
    blocks = draw(st.integers(1, 8))
    global_batch = micro_batch * blocks
    num_windows = global_batch * draw(st.integers(1, 4)) + draw(st.integers(0, global_batch - 1))
    return {
        "num_windows": num_windows,
        "global_batch": global_batch,
        "micro_batch": micro_batch,
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(samplers(), st.integers(0, 12), st.integers(1, 6))
def test_a_resumed_sampler_deals_what_the_first_one_would_have(settings, before, after):
    first, second = WindowSampler(**settings), WindowSampler(**settings)
    for _ in range(before):
        first.next_step()
    second.load_state_dict(first.state_dict())
    for _ in range(after):
        np.testing.assert_array_equal(first.next_step(), second.next_step())


@given(samplers(), st.data())
def test_any_number_of_ranks_sees_the_same_micro_batches(settings, data):
    blocks = settings["global_batch"] // settings["micro_batch"]
    world_size = data.draw(st.sampled_from([r for r in range(1, blocks + 1) if blocks % r == 0]))
    alone = WindowSampler(**settings)
    ranks = [WindowSampler(**settings, rank=r, world_size=world_size) for r in range(world_size)]
    for _ in range(3):
        together = np.concatenate([rank.next_step() for rank in ranks])
        np.testing.assert_array_equal(together, alone.next_step())


@given(samplers())
def test_an_epoch_deals_each_window_at_most_once_and_the_next_epoch_shuffles_again(settings):
    sampler = WindowSampler(**settings)
    epochs = [[sampler.next_step().ravel() for _ in range(sampler.steps_per_epoch)] for _ in range(2)]
    for epoch in epochs:
        dealt = np.concatenate(epoch)
        assert len(set(dealt.tolist())) == len(dealt)
        assert dealt.min() >= 0
        assert dealt.max() < settings["num_windows"]
    assert sampler.state_dict() == {"epoch": 2, "position": 0}
    if settings["num_windows"] >= 20:
        assert not np.array_equal(epochs[0][0], epochs[1][0]) or settings["global_batch"] < 4


def test_the_order_of_a_seed_never_changes():
    sampler = WindowSampler(10, 4, 2, seed=7)
    assert [sampler.next_step().tolist() for _ in range(3)] == [
        [[8, 0], [7, 1]],
        [[3, 6], [2, 4]],
        [[9, 0], [8, 6]],
    ]


def test_too_few_windows_or_a_batch_that_does_not_divide_are_data_errors():
    with pytest.raises(DataError, match="the text makes only 7 sequences"):
        WindowSampler(7, 8, 4)
    with pytest.raises(DataError, match="multiple of 12"):
        WindowSampler(100, 8, 4, world_size=3)


def test_a_position_that_the_text_does_not_have_is_a_data_error():
    with pytest.raises(DataError, match="3 steps per epoch"):
        WindowSampler(12, 4, 4).load_state_dict({"epoch": 0, "position": 3})
