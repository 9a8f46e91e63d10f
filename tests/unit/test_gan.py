"""Adversarial training in this process: losses, quality figures, what is learnt, and an exact resume."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from gan_fixtures import RING, make_gan, make_ring, weights
from gnomon.data.images import Digits
from gnomon.errors import ConfigError, DataError, InterruptedRunError, SpecError
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from gnomon.train.gan import GANTrainer
from gnomon.train.gan_losses import LOSSES, gradient_penalty
from gnomon.train.gan_quality import density_and_coverage, mmd, quality, sliced_wasserstein
from gnomon.train.image_grid import image_grid

pytestmark = pytest.mark.usefixtures("one_thread")


# Losses and quality figures against numbers computed in another way


def test_losses_are_those_of_their_papers():
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-1.5, 0.25])
    probability = nn.functional.binary_cross_entropy_with_logits
    expected = {
        "non_saturating": (
            probability(real, torch.ones(2)) + probability(fake, torch.zeros(2)),
            probability(fake, torch.ones(2)),
        ),
        "hinge": (torch.tensor((0.5 + 0.0) / 2 + (0.0 + 1.25) / 2), torch.tensor((1.5 - 0.25) / 2)),
        "wasserstein": (torch.tensor(-0.625 - 1.25), torch.tensor(0.625)),
    }
    for name, (discriminator, generator) in expected.items():
        assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(discriminator.item()), name
        assert LOSSES[name].generator(fake).item() == pytest.approx(generator.item()), name


def test_the_gradient_penalty_of_a_linear_score_is_known():
    score = nn.Linear(3, 1, bias=False)
    nn.init.constant_(score.weight, 2.0)  # the norm of its gradient is 2 sqrt(3) everywhere
    penalty = gradient_penalty(score, torch.randn(5, 3), torch.randn(5, 3), torch.rand(5))
    assert penalty.item() == pytest.approx((2.0 * math.sqrt(3.0) - 1.0) ** 2, rel=1e-5)
    penalty.backward()
    assert score.weight.grad.abs().sum() > 0.0


def test_mmd_is_zero_on_average_for_one_distribution_and_not_for_two():
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(200, 3, generator=generator, dtype=torch.float64)  # noqa: E731
    same = [mmd(draw(), draw()) for _ in range(30)]
    assert abs(np.mean(same)) < 3.0 * np.std(same) / math.sqrt(30)  # unbiased
    assert min(same) < 0.0
    assert mmd(draw(), draw() + 0.5) > 5.0 * np.std(same)


def test_mmd_equals_its_formula_written_out():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    y = torch.tensor([[0.5], [2.0]], dtype=torch.float64)

    def kernel(a: float, b: float) -> float:
        return sum(math.exp(-((a - b) ** 2) / (2 * (s * 2.0) ** 2)) for s in (0.25, 0.5, 1, 2, 4)) / 5  # median is 2

    xs, ys = x.flatten().tolist(), y.flatten().tolist()
    within = [
        sum(kernel(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j)
        / len(each)
        / (len(each) - 1)
        for each in (xs, ys)
    ]
    between = sum(kernel(a, b) for a in xs for b in ys) / 6
    assert mmd(x, y) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_the_sliced_distance_of_a_shift_is_known():
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # every projection is moved by |cos| of its angle, which is 2 / pi on average
    assert sliced_wasserstein(x, x + torch.tensor([1.0, 0.0])) == pytest.approx(2.0 / math.pi, abs=0.03)
    assert sliced_wasserstein(x, x.flip(0)) == 0.0


def test_coverage_sees_missing_modes_and_density_sees_stray_samples():
    real = make_ring(800, 1).double()
    half = make_ring(800, 2).double()
    half = half[half[:, 0] > 0.0][:300].repeat(3, 1)[:800]
    stray = 3.0 * torch.randn(800, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    density, coverage = density_and_coverage(real, make_ring(800, 3).double())
    assert density == pytest.approx(1.0, abs=0.1)
    assert coverage == pytest.approx(1.0 - 2.0**-5, abs=0.03)
    assert density_and_coverage(real, half)[1] < 0.55
    assert density_and_coverage(real, stray)[0] < 0.1


def test_quality_needs_samples_that_mean_something():
    with pytest.raises(DataError, match="5 real and 5 generated samples"):
        quality(torch.rand(5, 2), torch.rand(5, 2))
    with pytest.raises(DataError, match="not finite"):
        quality(torch.rand(20, 2), torch.full((20, 2), math.nan))
    with pytest.raises(DataError, match="all alike"):
        quality(torch.ones(20, 2), torch.rand(20, 2))


# Training


@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])  # the third is that of the digits
def test_every_loss_moves_the_samples_towards_the_ring(tmp_path, loss):
    settings = {"learning_rate": 1e-2, "betas": (0.0, 0.9), "log_every": 100, "eval_every": 200, "ema_decay": 0.9}
    trainer = make_gan(tmp_path / "run", num_steps=400, adversarial_loss=loss, **settings)
    trainer.execute(RING, make_ring(300, 5))
    rows = RunDirectory(tmp_path / "run").read_metrics()
    found = [row for row in rows if "eval_mmd" in row]
    assert [row["step"] for row in found] == [200, 400]
    untrained = make_gan(tmp_path / "untrained", num_steps=1, eval_every=1, learning_rate=1e-9)
    untrained.execute(RING, make_ring(300, 5))
    before = RunDirectory(tmp_path / "untrained").read_metrics()[-1]
    assert before["eval_mmd"] > 0.1
    assert found[-1]["eval_mmd"] < 0.02
    assert found[-1]["eval_sliced_wasserstein"] < 0.5 * before["eval_sliced_wasserstein"]
    assert found[-1]["eval_coverage"] > 0.25 > before["eval_coverage"]
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [100, 200, 300, 400]
    assert {"train_discriminator_loss", "train_real_score", "train_fake_score", "samples_per_s"} <= set(logged[0])
    assert logged[0]["train_real_score"] > logged[0]["train_fake_score"]


def test_digits_are_generated_well(tmp_path):
    def images(split: str) -> torch.Tensor:
        return torch.stack([image for image, _ in Digits(split)])

    settings = {
        "num_steps": 400, "batch": 64, "adversarial_loss": "wasserstein", "discriminator_steps": 2, "ema_decay": 0.99,
        "latent_dim": 32, "log_every": 0, "quality_samples": 1000, "image_every": 200,
    }  # fmt: skip
    trainer = GANTrainer(
        {**make_gan(tmp_path / "run").config.to_mapping(), **settings},
        {"name": "mlp", "hidden": [256, 256], "output": "sigmoid"},
        {"name": "mlp", "hidden": [256, 256]},
    )
    *_, generator = trainer.execute(images("train"), None, images("test"))
    (row,) = RunDirectory(tmp_path / "run").read_metrics()
    assert row["step"] == 400
    # the train part itself, against the test part: mmd 0.004, sliced_wasserstein 0.019, coverage 0.90
    assert row["test_mmd"] < 0.015
    assert row["test_sliced_wasserstein"] < 0.035
    assert row["test_coverage"] > 0.6
    assert row["test_density"] > 0.5
    assert generator(torch.zeros(1, 32)).shape == (1, 1, 8, 8)
    items = [
        json.loads(line)
        for line in (tmp_path / "run" / "tracking" / "rank-0" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(item["kind"], item["name"], item["step"]) for item in items] == [
        ("image", "samples", 200), ("image", "samples", 400)
    ]  # fmt: skip
    from PIL import Image

    assert Image.open(tmp_path / "run" / items[0]["path"]).size == (8 * 9 - 1, 8 * 9 - 1)


class ScheduledGAN(GANTrainer):
    def create_scheduler(self):
        return torch.optim.lr_scheduler.StepLR(self.optimizer, 3, gamma=0.5)

    def create_discriminator_scheduler(self):
        return torch.optim.lr_scheduler.StepLR(self.discriminator_optimizer, 4, gamma=0.1)


def test_both_learning_rates_follow_their_schedules_and_all_resumes_bit_for_bit(tmp_path):
    rates = []

    def make(name: str, **changes):
        config = make_gan(
            tmp_path / name, ema_decay=0.9, checkpoint_every=10, eval_every=5, best_metric="eval_mmd",
            adversarial_loss="wasserstein", discriminator_steps=2, discriminator_learning_rate=4e-3,
            accumulation=2, **changes
        ).config  # fmt: skip
        trainer = ScheduledGAN(config, {"name": "mlp", "hidden": [32]}, {"name": "mlp", "hidden": [32]})
        step = trainer.run_step

        def recorded():
            rates.append(trainer.discriminator_optimizer.param_groups[0]["lr"] if trainer.step % 2 == 0 else None)
            return step()

        trainer.run_step = recorded
        return trainer

    whole = make("whole")
    whole.execute(RING)
    assert rates[::2] == pytest.approx([4e-3, 4e-4, 4e-5, 4e-6, 4e-7])  # two steps each, so one decay per two
    assert whole.learning_rate == pytest.approx(1e-3 * 0.5**3)

    stopped = make("run")
    stopped._call = lambda *_: None
    inner = stopped.discriminator_step

    def signalled(batch):
        if stopped.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(batch)

    stopped.discriminator_step = signalled
    with pytest.raises(InterruptedRunError):
        stopped.execute(RING)
    resumed = make("run", resume=True)
    resumed.execute(RING)
    assert torch.equal(weights(resumed), weights(whole))
    for name, average in whole._average.tensors.items():
        assert torch.equal(resumed._average.tensors[name], average)
    kept = ("loss", "eval_mmd", "eval_coverage", "train_discriminator_loss", "lr")
    curves = [
        [{name: row.get(name) for name in kept} for row in RunDirectory(tmp_path / name).read_metrics()]
        for name in ("whole", "run")
    ]
    assert curves[0] == curves[1]
    files = [
        read_state(list_checkpoints(tmp_path / name / "checkpoints")[0])["files"]["__0_0.distcp"]
        for name in ("whole", "run")
    ]
    assert files[0] == files[1]


def test_the_same_numbers_are_drawn_however_the_batch_is_cut(tmp_path):
    found = []
    for accumulation in (1, 4):
        trainer = make_gan(tmp_path / str(accumulation), accumulation=accumulation)
        trainer.execute(RING)
        found.append(weights(trainer))
    assert (found[0] - found[1]).norm() <= 1e-5 * found[0].norm()


def test_the_discriminator_trains_at_its_own_rate_and_the_generator_leaves_it_alone(tmp_path):
    trainer = make_gan(tmp_path / "run", discriminator_learning_rate=1e-12)
    trainer.execute(RING)
    again = make_gan(tmp_path / "again", num_steps=1, discriminator_learning_rate=1e-12)
    again.execute(RING)
    moved = [
        sum((a - b).abs().sum().item() for a, b in zip(x.parameters(), y.parameters(), strict=True))
        for x, y in ((trainer.module, again.module), (trainer.discriminator, again.discriminator))
    ]
    assert moved[0] > 1.0
    assert moved[1] < 1e-6
    assert all(parameter.requires_grad for parameter in trainer.discriminator.parameters())


def test_images_side_by_side():
    grid = image_grid(torch.arange(3.0)[:, None, None].expand(3, 2, 2), (0.0, 2.0))
    assert grid.shape == (5, 5, 1)
    assert grid[..., 0].tolist() == [
        [0.0, 0.0, 0.0, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"precision": "fp16"}, SpecError, "set bf16 or fp32"),
        ({"adversarial_loss": "hing"}, SpecError, "hinge"),
        ({"adversarial_loss": "hinge", "gradient_penalty": 5.0}, SpecError, "gradient_penalty=5 has no effect with"),
        ({"image_every": 2}, ConfigError, r"a sample has the shape \(2,\), which is no image"),
        ({"batch": 501}, DataError, "only 500 example"),
        ({"latent_dimension": 3}, SpecError, "Did you mean 'latent_dim'"),
    ],
)
def test_settings_that_do_not_fit_are_one_message(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        make_gan(tmp_path / "run", **changes).execute(RING)
    assert not (tmp_path / "run").exists()


def test_networks_that_are_none_are_one_message(tmp_path):
    config = make_gan(tmp_path / "run").config
    with pytest.raises(ConfigError, match="generator is 3"):
        GANTrainer(config, 3, "mlp")
    with pytest.raises(ConfigError, match=r"discriminator\.name='mpl' is not known"):
        GANTrainer(config, "mlp", {"name": "mpl"})
    with pytest.raises(SpecError, match="hiden"):
        GANTrainer(config, {"hiden": [3]}, "mlp")
    with pytest.raises(DataError, match="no training data"):
        GANTrainer(config, "mlp", "mlp").execute(None)
