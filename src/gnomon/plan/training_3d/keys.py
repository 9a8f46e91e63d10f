"""What the planner calls the keys of the schema, and errors of the planner in the schema's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gnomon.errors import GnomonError

MODEL_KEYS = {
    "num_layers": "n_layers",
    "hidden_size": "hidden_sz",
    "num_heads": "n_q_heads",
    "num_kv_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "ffn_hidden_size": "inter_sz",
    "vocab_size": "vocab_sz",
    "tied_embeddings": "tie_embeddings",
}
MOE_KEYS = {
    "num_experts": "n_experts",
    "experts_per_token": "experts_per_token",
    "expert_ffn_size": "expert_inter_sz",
}
LAYOUT_KEYS = {
    **{name: name for name in ("dp", "tp", "pp", "cp", "vpp")},
    "sequence_parallel": "sp",
    "zero_stage": "zero_level",
}
WORKLOAD_KEYS = {"seq_len": "seqlen", "global_batch": "gbs", "micro_batch": "microbatch_sz"}

_WORDS = {**MODEL_KEYS, **MOE_KEYS, **LAYOUT_KEYS, **WORKLOAD_KEYS, "expert_tp": "expert_tp_degree"}
_ANY_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")


@contextmanager
def schema_words() -> Iterator[None]:
    """Let errors of the planner speak of the keys that the user set; their types stay."""
    try:
        yield
    except GnomonError as error:
        raise type(error)(_ANY_WORD.sub(lambda match: _WORDS[match[0]], str(error))) from None
