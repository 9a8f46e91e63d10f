"""Keep what finished steps returned, addressed by content, so that they need not run again."""

from gnomon.pipeline.cache.fingerprint import NoFingerprintError, fingerprint
from gnomon.pipeline.cache.steps import CacheSession, StepCache
from gnomon.pipeline.cache.store import OutputStore

__all__ = ["CacheSession", "NoFingerprintError", "OutputStore", "StepCache", "fingerprint"]
