"""The cache of a pipeline: the keys of its steps, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnomon.component import Component
from gnomon.component.monitor import label_here, print_step
from gnomon.pipeline._fit import as_outputs
from gnomon.pipeline._wiring import Source, Wiring
from gnomon.pipeline.cache.codec import DamagedError, NotStorableError
from gnomon.pipeline.cache.fingerprint import NoFingerprintError, canonical_component, fingerprint
from gnomon.pipeline.cache.store import OutputStore, Stored


class StepCache:
    """Looks outputs of steps up, and keeps them, under keys made of their code, settings and inputs.

    What a step depends on is the key of the step before, and what is kept under it, where that is kept too; else it is
    the content of that step's output. A step that ran again counts by its new output, though its key is the old one.
    """

    def __init__(self, store: OutputStore, steps: frozenset[str], told: set[str]) -> None:
        self._store = store
        self._steps = steps
        self._told = told  # shared by all executions of a pipeline, so that each thing is said once

    def open(self, wiring: Wiring, components: Mapping[str, Component], inputs: tuple[Any, ...]) -> CacheSession:
        """Return the cache as one execution sees it."""
        return CacheSession(self, wiring, components, inputs)

    def covers(self, label: str) -> bool:
        """Whether outputs of this step are kept."""
        return label in self._steps

    def load(self, label: str, key: str) -> Stored | None:
        """Return the output that is kept under a key; one that is damaged is told of and counts as none."""
        try:
            return self._store.load(key)
        except DamagedError as error:
            self.tell(label, f"runs again: its cached output cannot be used, {error}")
            return None

    def save(self, label: str, key: str, value: Any) -> str | None:
        """Keep an output and return its digest; one that has no safe form is told of, once, and has none."""
        try:
            return self._store.save(key, label, value)
        except NotStorableError as error:
            self.tell(label, f"is not cached and will run again: {error}")
            return None

    def digest(self, key: str) -> str | None:
        """Return the digest of the output that is kept under a key, None if there is none."""
        return self._store.digest(key)

    def tell(self, label: str, message: str) -> None:
        """Print a message about a step, unless it was printed before."""
        if f"{label} {message}" not in self._told:
            self._told.add(f"{label} {message}")
            print_step("!", label_here(label), message)


class CacheSession:
    """The cache in one execution of a pipeline, with the results that there are so far in `results`."""

    def __init__(
        self, cache: StepCache, wiring: Wiring, components: Mapping[str, Component], inputs: tuple[Any, ...]
    ) -> None:
        self._cache = cache
        self._wiring = wiring
        self._components = components
        self._inputs = inputs
        self._keys: dict[str, str | None] = {}
        self._digests: dict[str, str | None] = {}  # of the outputs that were loaded or saved in this execution

    def load(self, label: str, results: Mapping[str, Any]) -> Stored | None:
        """Return the output of an earlier execution of a step under the same conditions, None if there is none."""
        key = self._key(label, results) if self._cache.covers(label) else None
        found = None if key is None else self._cache.load(label, key)
        if found is not None:
            self._digests[label] = found.digest
        return found

    def save(self, label: str, results: Mapping[str, Any]) -> None:
        """Keep the output of a step that has just run, where that is wanted and possible."""
        key = self._keys.get(label)
        if key is not None:
            self._digests[label] = self._cache.save(label, key, results[label])

    def _key(self, label: str, results: Mapping[str, Any]) -> str | None:
        if label not in self._keys:
            self._keys[label] = self._make_key(label, results)
        return self._keys[label]

    def _make_key(self, label: str, results: Mapping[str, Any]) -> str | None:
        try:
            given = [source for source in self._wiring[label] if source != Source(None) or self._inputs]
            sources = [[source.parameter, self._source_key(source, results)] for source in given]
            component = canonical_component(self._components[label], f"step '{label}'")
            return fingerprint([component, sources])
        except NoFingerprintError as error:
            self._cache.tell(label, f"is not cached: {error}")
            return None

    def _source_key(self, source: Source, results: Mapping[str, Any]) -> Any:
        if source.step is None:
            values: Any = self._inputs
            where = "an input of the pipeline"
        else:
            key = self._key(source.step, results) if self._cache.covers(source.step) else None
            if key is not None and (digest := self._digest(source.step, key)) is not None:
                return [key, digest, source.output]
            where = f"what step '{source.step}' returned"
            if source.step not in results:
                raise NoFingerprintError(f"{where} is not known")
            values = as_outputs(results[source.step])
        chosen = values if source.output is None else values[source.output : source.output + 1]
        return fingerprint(list(chosen), where)

    def _digest(self, label: str, key: str) -> str | None:
        """Return the digest of the output of a step that this execution has, else of the one that is kept."""
        return self._digests[label] if label in self._digests else self._cache.digest(key)
