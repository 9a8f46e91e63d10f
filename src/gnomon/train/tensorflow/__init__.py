"""Supervised training with TensorFlow and Keras; TensorFlow is imported when a trainer starts, torch never."""

from gnomon.train.tensorflow.trainer import TensorFlowTrainer

__all__ = ["TensorFlowTrainer"]
