"""The training loop, its checkpoints and the models that it builds."""
