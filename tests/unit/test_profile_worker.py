"""A real profile of a tiny GPT, held against what can be counted by hand."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from gnomon.profile.profile_worker import PROFILED_STEPS, STEPS_IN_TRACE, main, profile_rank
from gnomon.profile.profiled_trainer import ProfiledTrainer
from gnomon.profile.rank_profile import RankProfile, summary_path, trace_path
from gnomon.profile.step_profile import attribute_steps
from gnomon.profile.trace_events import read_trace, trace_events
from gnomon.spec import ModelSpec, Workload
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer

LAYERS, HIDDEN, TOKENS, MICRO_BATCHES = 2, 64, 2 * 32, 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    (root / "text.txt").write_text("the shadow of the gnomon tells the hour\n" * 500)
    model = ModelSpec(num_layers=LAYERS, hidden_size=HIDDEN, num_heads=2, vocab_size=256, max_seq_len=32)
    return GPTTrainingConfig(
        run_dir=str(root / "never-made"),
        num_steps=4,
        warmup_steps=4,
        device="cpu",
        model=model,
        workload=Workload(seq_len=32, global_batch=4, micro_batch=2),
        data={"root": str(root), "pattern": "*.txt"},
    )


@pytest.fixture(scope="module")
def profiled(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    return profile_rank(config, folder), folder


def calls(profile, term):
    return {operator.name: operator.calls for operator in profile.operators if operator.term == term}


def test_every_matrix_product_is_found_in_its_term(profiled):
    profile, _ = profiled
    assert calls(profile, "matmul_s") == {
        "aten::linear": 4 * LAYERS * MICRO_BATCHES,
        "aten::mm": 8 * LAYERS * MICRO_BATCHES,
    }
    head = calls(profile, "embedding_head_s")
    assert (head["aten::linear"], head["aten::mm"]) == (MICRO_BATCHES, 2 * MICRO_BATCHES)
    assert head["aten::embedding"] == head["aten::cross_entropy_loss"] == MICRO_BATCHES
    assert all(count == LAYERS * MICRO_BATCHES for count in calls(profile, "attention_s").values())
    assert calls(profile, "data_s") == {"gnomon::data": MICRO_BATCHES}
    assert {"gnomon::clipping", "Optimizer.step#AdamW.step"} <= calls(profile, "optimizer_s").keys()


def test_terms_fit_into_the_step_and_cover_most_of_it(profiled):
    profile, _ = profiled
    assert profile.num_profiled_steps == PROFILED_STEPS
    assert 0.5 < sum(profile.terms.values()) / profile.profiled_step_time_s <= 1.0
    assert all(profile.terms[term] > 0 for term in profile.terms)
    assert "communication_s" not in profile.terms


def test_memory_agrees_with_what_autograd_must_keep(profiled):
    profile, _ = profiled
    parameters = 256 * HIDDEN + 32 * HIDDEN + LAYERS * (12 * HIDDEN**2 + 2 * HIDDEN) + HIDDEN
    assert profile.weights_bytes == profile.gradients_bytes == 4 * parameters
    assert 0 <= profile.optimizer_bytes - 8 * parameters <= 64 * (LAYERS * 6 + 3)  # and a step counter per tensor
    assert profile.communication_bytes == 0
    kept = 4 * TOKENS * (LAYERS * 16 * HIDDEN + 2 * HIDDEN + 256)
    memory = profile.memory
    # when the gradients are made, all activations are there: what is kept and not yet paid back by a gradient
    assert kept < memory.activations_bytes + memory.gradients_bytes < 2 * kept + memory.gradients_bytes
    assert profile.peak_tensor_bytes < profile.peak_memory_bytes
    assert 0 < profile.baseline_memory_bytes < profile.peak_memory_bytes
    assert memory.total_bytes == pytest.approx(profile.peak_memory_bytes)


def test_summary_and_a_short_trace_are_written_and_nothing_else(profiled, config):
    profile, folder = profiled
    assert RankProfile.load(summary_path(folder, 0)) == profile
    document = read_trace(trace_path(folder, 0))
    assert len(attribute_steps(trace_events(document))) == STEPS_IN_TRACE
    assert document["traceName"] == "rank-0.json.gz"
    assert sorted(path.name for path in folder.iterdir()) == ["rank-0.json.gz", "rank-0.summary.json"]
    assert not (folder.parent / config.run_dir).exists()


def test_the_names_of_the_phases_change_no_number(config):
    losses = []
    clip = nn.utils.clip_grad_norm_
    for kind in (GPTTrainer, ProfiledTrainer):
        trainer = kind(config)
        trainer.setup()
        losses.append(torch.stack([trainer.run_step() for _ in range(3)]))
        trainer.teardown()
    assert torch.equal(*losses)
    assert nn.utils.clip_grad_norm_ is clip


def test_wrong_arguments_are_one_message(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["profile_worker"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "Two arguments are needed" in capsys.readouterr().err


def test_a_worker_started_by_hand_reads_its_configuration_from_a_file(monkeypatch, config, tmp_path):
    found = []
    monkeypatch.setattr("gnomon.profile.profile_worker.profile_rank", lambda *given: found.append(given))
    path = tmp_path / "training.json"
    path.write_text(json.dumps(config.to_mapping()))
    monkeypatch.setattr(sys, "argv", ["profile_worker", str(path), str(tmp_path)])
    main()
    assert found == [(config, tmp_path)]
