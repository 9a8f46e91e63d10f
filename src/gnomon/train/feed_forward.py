"""The feed-forward layer of a transformer and its activations."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.spec import ModelSpec

_ACTIVATIONS = {"gelu": "none", "gelu_tanh": "tanh"}


class MLP(nn.Module):
    """The feed-forward layer, plain or gated (SwiGLU, GEGLU: arXiv 2002.05202).

    Rows of a gated `up` alternate between gate and value, so that it can be cut into any number of equal parts.
    """

    def __init__(self, spec: ModelSpec, width: int, bias: bool) -> None:
        super().__init__()
        self.activation, self.is_gated = spec.activation, spec.gated_mlp
        self.up = nn.Linear(spec.hidden_size, width * (2 if spec.gated_mlp else 1), bias=bias)
        self.down = nn.Linear(width, spec.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward output (batch, sequence, hidden)."""
        return self.down(gated_activation(self.up(x), self.activation, self.is_gated))


def gated_activation(x: Tensor, name: str, is_gated: bool) -> Tensor:
    """Return the activation of x, or, where its columns alternate between gate and value, of the gate times value."""
    if not is_gated:
        return activate(x, name)
    gate, value = x.unflatten(-1, (-1, 2)).unbind(-1)
    return activate(gate, name) * value


def activate(x: Tensor, name: str) -> Tensor:
    """Return the activation `name` of x, elementwise."""
    if name in _ACTIVATIONS:
        return F.gelu(x, approximate=_ACTIVATIONS[name])
    return F.silu(x) if name == "silu" else F.relu(x)
