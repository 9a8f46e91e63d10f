"""DeepSpeed's ZeRO through its engine."""

from gnomon.strategy.deepspeed.strategy import DeepSpeedStrategy

__all__ = ["DeepSpeedStrategy"]
