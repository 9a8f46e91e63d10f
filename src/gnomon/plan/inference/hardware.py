"""The inverse question: what is the least hardware that meets a target of latency or throughput?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gnomon.errors import CatalogError, GnomonError, LayoutError, PlanError, did_you_mean
from gnomon.plan.checks import check_imbalance
from gnomon.plan.cost import MOST_PER_HOUR
from gnomon.plan.inference.evaluate import Serving, needed_memory, serve
from gnomon.plan.inference.planner import check_serving, every_batch, serving_layout, usable_bytes
from gnomon.plan.inference.workload import InferenceWorkload
from gnomon.spec import ClusterSpec, FrozenMap, Layout, ModelSpec, Noun
from gnomon.spec.catalog import list_clusters, load_cluster

TENSOR_DEGREES = (1, 2, 4, 8, 16, 32, 64)
PIPELINE_DEGREES = (1, 2, 4, 8)


class ServingTarget(Noun):
    """What must hold at the same time."""

    ttft_s: PositiveFloat | None = Field(default=None, description="time to first token at most")
    tpot_s: PositiveFloat | None = Field(default=None, description="time per output token at most")
    tokens_per_s: PositiveFloat | None = Field(
        default=None, le=1e15, description="output tokens of all replicas at least"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ttft_s is None and self.tpot_s is None and self.tokens_per_s is None:
            raise ValueError("a target needs at least one of ttft_s, tpot_s and tokens_per_s")
        return self


class HardwareChoice(Noun):
    """The least hardware of one cluster that meets the target."""

    cluster: str
    accelerator: str
    num_accelerators: PositiveInt
    layout: Layout = Field(description="dp are replicas")
    batch: PositiveInt = Field(description="sequences that a replica decodes together")
    ttft_s: PositiveFloat
    tpot_s: PositiveFloat
    tokens_per_s: PositiveFloat = Field(description="output tokens of all replicas")
    price_per_hour: NonNegativeFloat | None = Field(description="of all accelerators; None without a price")
    price_per_million_tokens: NonNegativeFloat | None = Field(description="output tokens at full load")


class HardwareSearch(Noun):
    """Choices by number of accelerators, or by price per hour where all have one; and why others are not among them."""

    target: ServingTarget
    choices: tuple[HardwareChoice, ...]
    rejected: FrozenMap[str, str] = Field(default_factory=dict, description="{cluster: reason}")


def find_hardware(
    model: ModelSpec,
    workload: InferenceWorkload,
    target: ServingTarget,
    clusters: Iterable[str] | None = None,
    prices: Mapping[str, float] | None = None,
) -> HardwareSearch:
    """Return the smallest number of accelerators of each catalog cluster that meets `target`, and how.

    Every power-of-two tensor-parallel degree inside the innermost network tier is tried, with as few pipeline stages
    (1, 2, 4 or 8) as the model fits, and all batches that fit; replicas are added up to the throughput. `prices` are
    per accelerator-hour by the name of a cluster or accelerator, `*` for all. The batch of `workload` is not used.
    """
    known = list_clusters()
    names = tuple(dict.fromkeys(name.lower() for name in (known if clusters is None else clusters)))
    for name in names:
        if name not in known:
            raise CatalogError(f"The catalog has no cluster '{name}'. {did_you_mean(name, known)}")
    check_imbalance(model, workload.expert_imbalance)
    prices = {name.lower(): price for name, price in (prices or {}).items()}
    _check_prices(prices, names)
    choices, rejected = [], {}
    for name in names:
        try:
            found = _least(model, load_cluster(name), workload, target, prices)
        except GnomonError as error:
            rejected[name] = str(error)
            continue
        if found is None:
            rejected[name] = "no layout with these degrees meets the target"
        else:
            choices.append(found)
    priced = all(choice.price_per_hour is not None for choice in choices)
    choices.sort(
        key=lambda c: (c.price_per_hour if priced else 0.0, c.num_accelerators, -c.tokens_per_s / c.num_accelerators)
    )
    return HardwareSearch(target=target, choices=tuple(choices), rejected=rejected)


def _check_prices(prices: Mapping[str, float], clusters: Iterable[str]) -> None:
    known = {"*"}
    for name in clusters:
        known |= {name, load_cluster(name).accelerator.name}
    for name, price in prices.items():
        if name not in known:
            raise PlanError(f"A price is given for '{name}', which is not searched. {did_you_mean(name, known)}")
        if not 0 <= price <= MOST_PER_HOUR:
            raise PlanError(
                f"The price of '{name}' is {price}; give a number from zero to {MOST_PER_HOUR:g} per accelerator-hour."
            )


def _least(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: InferenceWorkload,
    target: ServingTarget,
    prices: Mapping[str, float],
) -> HardwareChoice | None:
    """Return the best choice on `cluster`, or None; raise PlanError when its memory is unknown or the model too big."""
    capacity = usable_bytes(cluster, workload)
    if capacity is None:
        raise PlanError(f"the memory of '{cluster.accelerator.name}' is unknown")
    best: HardwareChoice | None = None
    fitting: set[tuple[int, int]] = set()
    for grown, layout in _replicas(model, cluster):
        split = (layout.tp, layout.ep)
        if split in fitting or (best is not None and layout.num_ranks > best.num_accelerators):
            continue
        try:
            check_serving(model, grown, layout, workload)
        except LayoutError:
            continue
        limit = needed_memory(model, grown, layout, workload).max_batch(capacity)
        if limit == 0:
            continue
        fitting.add(split)
        found = serve(model, grown, layout, workload, every_batch(limit))
        choice = _choose(found, grown, layout, target, prices)
        if choice is not None and (best is None or _rank(choice) < _rank(best)):
            best = choice
    if not fitting:
        raise PlanError("the model does not fit with these degrees")
    return best


def _rank(choice: HardwareChoice) -> tuple[float, float]:
    return choice.num_accelerators, -choice.tokens_per_s


def _replicas(model: ModelSpec, cluster: ClusterSpec) -> Iterator[tuple[ClusterSpec, Layout]]:
    """Yield replicas and the part of the cluster that holds them; experts are split over tp, or spread over it."""
    inner = max(cluster.accelerators_per_node, cluster.tiers[0].span if cluster.tiers else 1)
    for tp in TENSOR_DEGREES:
        if tp > inner:
            break
        for pp in PIPELINE_DEGREES:
            ranks = tp * pp
            nodes = math.ceil(ranks / cluster.accelerators_per_node)
            grown = cluster.model_copy(update={"num_nodes": max(nodes, cluster.num_nodes)})
            experts = [{"expert_tp": tp}, {"ep": tp}] if model.moe and tp > 1 else [{}]
            for split in experts:
                yield grown, serving_layout(model, Layout.from_mapping({"tp": tp, "pp": pp, **split}))


def _choose(
    found: Serving, cluster: ClusterSpec, layout: Layout, target: ServingTarget, prices: Mapping[str, float]
) -> HardwareChoice | None:
    """Return the batch with the most throughput within the latency, with as many replicas as the target needs."""
    meets = np.ones(found.batch.shape, dtype=bool)
    if target.ttft_s is not None:
        meets &= found.ttft_s <= target.ttft_s
    if target.tpot_s is not None:
        meets &= found.tpot_s <= target.tpot_s
    if not meets.any():
        return None
    index = int(np.argmax(np.where(meets, found.throughput, -1.0)))
    per_replica = float(found.throughput[index])
    replicas = 1 if target.tokens_per_s is None else math.ceil(target.tokens_per_s / per_replica)
    accelerators = replicas * layout.num_ranks
    name = cluster.accelerator.name
    price = next((prices[key] for key in (cluster.name, name, "*") if key in prices), None)
    hourly = None if price is None else price * accelerators
    tokens_per_s = per_replica * replicas
    return HardwareChoice(
        cluster=cluster.name,
        accelerator=name,
        num_accelerators=accelerators,
        layout=layout.model_copy(update={"dp": replicas}),
        batch=int(found.batch[index]),
        ttft_s=float(found.ttft_s[index]),
        tpot_s=float(found.tpot_s[index]),
        tokens_per_s=tokens_per_s,
        price_per_hour=hourly,
        price_per_million_tokens=None if hourly is None else hourly / 3600.0 / tokens_per_s * 1e6,
    )
