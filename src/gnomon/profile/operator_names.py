"""Which term of the planner an operator of the framework belongs to, by its name alone."""

from __future__ import annotations

from gnomon.runtime.scopes import RECOMPUTE_SCOPE

GENERIC_TERM = "elementwise_s"

STEP_SCOPE = "gnomon::step"
DATA_SCOPE = "gnomon::data"
EMBEDDING_SCOPE = "gnomon::embedding"
FORWARD_SCOPE = "gnomon::forward"
HEAD_SCOPE = "gnomon::head"
CLIPPING_SCOPE = "gnomon::clipping"

_ANNOTATIONS = {
    "Optimizer.step#": "optimizer_s",
    "Optimizer.zero_grad#": "optimizer_s",
    CLIPPING_SCOPE: "optimizer_s",
    "enumerate(DataLoader)#": "data_s",
    DATA_SCOPE: "data_s",
    RECOMPUTE_SCOPE: "recompute_s",
}
_COMMUNICATION = (
    "c10d::",
    "gloo:",
    "nccl:",
    "nccldevkernel",
    "ncclkernel",
    "record_param_comms",
    "torch.distributed.ddp.reducer::",
    "torch::distributed::reducer::",
)
_MATMUL = frozenset(
    {
        "linear",
        "matmul",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "addbmm",
        "mv",
        "addmv",
        "einsum",
        "mkldnn_linear",
        "_linear_pointwise",
        "_addmm_activation",
        "_scaled_mm",
        "_grouped_mm",
        "linear_backward",
        "mkldnn_linear_backward",
    }
)
_EMBEDDING_HEAD = frozenset(
    {
        "embedding",
        "embedding_dense_backward",
        "embedding_backward",
        "cross_entropy_loss",
        "log_softmax",
        "_log_softmax",
        "_log_softmax_backward_data",
        "nll_loss",
        "nll_loss_nd",
        "nll_loss_forward",
        "nll_loss_backward",
        "linear_cross_entropy",
    }
)
_ATTENTION = ("scaled_dot_product", "flash_attn", "flash_attention", "efficient_attention", "flex_attention")
_AUTOGRAD = ("autograd::engine::evaluate_function", "torch::autograd::")


def term_of_annotation(name: str) -> str | None:
    """Return the term that a whole annotated scope belongs to, or None for a scope that only groups."""
    if is_communication(name):
        return "communication_s"
    return next((term for prefix, term in _ANNOTATIONS.items() if name.startswith(prefix)), None)


def term_of_operator(name: str) -> str | None:
    """Return the term that the name alone decides, or None for an operator like any other (elementwise)."""
    if is_communication(name):
        return "communication_s"
    base = name.rpartition("::")[2].removesuffix(".default")
    if base in _MATMUL:
        return "matmul_s"
    if any(part in base for part in _ATTENTION):
        return "attention_s"
    return "embedding_head_s" if base in _EMBEDDING_HEAD else None


def is_communication(name: str) -> bool:
    """Return whether an operator, an annotation or a kernel moves data between ranks or prepares it."""
    return name.lower().startswith(_COMMUNICATION)


def is_autograd_node(name: str) -> bool:
    """Return whether an event is the engine running a node, rather than an operator that computes."""
    if name.startswith(_AUTOGRAD):
        return True
    stem = name.rstrip("0123456789")
    return stem != name and stem.endswith("Backward") and "::" not in name
