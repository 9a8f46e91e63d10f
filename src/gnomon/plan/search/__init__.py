"""All layouts of a model on a cluster: which can run, which fit, which are fast, and why the others lost."""

from gnomon.plan.search.result import Candidate, Ranked, SearchResult
from gnomon.plan.search.run import search
from gnomon.plan.search.space import RecomputeChoice, SearchSpace, default_space

__all__ = ["Candidate", "Ranked", "RecomputeChoice", "SearchResult", "SearchSpace", "default_space", "search"]
