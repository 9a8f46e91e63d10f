"""Trains a GPT on byte-level text."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.data.loader import TextLoader
from gnomon.data.sampler import WindowSampler
from gnomon.data.text import ByteCorpus, Bytes, count_windows
from gnomon.errors import LayoutError
from gnomon.plan.flops import model_flops
from gnomon.runtime.environment import RankEnvironment
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt import GPT
from gnomon.train.trainer import Trainer


class GPTTrainer(Trainer):
    """The trainer of `GPTTrainingConfig`: one `GPT`, one text, as many ranks as the layout says."""

    config: GPTTrainingConfig

    def __init__(self, config: GPTTrainingConfig) -> None:
        super().__init__(config)
        self._model_flops = model_flops(config.model, config.workload)

    def setup(self) -> None:
        """Read the text and build everything that a step needs; raise LayoutError for a wrong number of ranks."""
        layout = self.config.layout
        started, needed = RankEnvironment.detect().world_size, layout.num_ranks
        if started != needed:
            split = layout.num_ranks // layout.dp
            degrees = f"layout.dp={layout.dp}" + (f" x tp={layout.tp} x pp={layout.pp} x cp={layout.cp}" * (split > 1))
            advice = f", or set layout.dp={started // split}" if started % split == 0 else ""
            raise LayoutError(f"{degrees} needs {needed} rank(s), but {started} started. Start {needed}{advice}.")
        self._corpus = ByteCorpus.read(self.config.data)
        super().setup()

    def create_model(self) -> nn.Module:
        """Return the GPT that the model spec describes."""
        layout = self.config.layout
        return GPT(self.config.model, layout.recompute, layout.recompute_share)

    def create_loader(self) -> TextLoader:
        """Return this rank's micro-batches of the training text."""
        return self._loader(self._corpus.train, self.config.workload.global_batch, "training")

    def create_evaluation_loader(self) -> TextLoader:
        """Return this rank's micro-batches of the validation text, the same each time."""
        per_pass = self.config.workload.micro_batch * self.config.layout.dp
        return self._loader(self._corpus.validation, per_pass, "validation")

    def training_step(self, batch: Any) -> Tensor:
        """Return the cross-entropy (nat per byte) of tokens and targets (micro_batch, seq_len)."""
        tokens, targets = batch
        logits = self.model(tokens)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def validation_step(self, batch: Any) -> Tensor:
        """Return the cross-entropy (nat per byte) of tokens and targets, without gradients."""
        return self.strategy.evaluate(self.model, self.training_step, batch)

    def identity(self) -> dict[str, Any]:
        """Return seed, model, workload and the checksum of the text."""
        return {
            **super().identity(),
            "model": self.config.model.to_mapping(),
            "workload": self.config.workload.to_mapping(),
            "data": {"bytes": len(self._corpus.train), "crc32": self._corpus.checksum},
        }

    def tokens_per_step(self) -> int:
        """Return the tokens of one optimizer step over all ranks."""
        return self.config.workload.tokens_per_step

    def mfu(self, step_time_s: float) -> float | None:
        """Return model FLOPs over the peak of all ranks, or None if the peak is unknown."""
        if self.config.peak_flops is None:
            return None
        return self._model_flops / (step_time_s * self.config.peak_flops * self.config.layout.num_ranks)

    def _loader(self, tokens: Bytes, global_batch: int, where: str) -> TextLoader:
        seq_len = self.config.workload.seq_len
        rank, world_size = self.strategy.data_shard
        sampler = WindowSampler(
            count_windows(tokens, seq_len, global_batch, where),
            global_batch,
            self.config.workload.micro_batch,
            rank=rank,
            world_size=world_size,
            seed=self.config.seed,
        )
        return TextLoader(tokens, sampler, seq_len, pin_memory=self.device.type == "cuda")
