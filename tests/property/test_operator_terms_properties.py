"""Whatever the trace, the terms are never negative, never exceed the step, and the breakdown adds up to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.profile.step_profile import attribute_steps, time_breakdown
from gnomon.profile.trace_events import TraceEvent
from gnomon.spec import TIME_TERMS

NAMES = (
    "aten::mm",
    "aten::linear",
    "aten::add",
    "aten::scaled_dot_product_attention",
    "aten::embedding",
    "c10d::allreduce_",
    "autograd::engine::evaluate_function: MmBackward0",
)
SCOPES = ("gnomon::data", "gnomon::forward", "gnomon::embedding", "gnomon::head", "gnomon::clipping", "gloo:all_reduce")
STEP_NS = 1000

busy_terms = st.dictionaries(st.sampled_from([t for t in TIME_TERMS if t != "idle_s"]), st.floats(0, 10), max_size=7)


@st.composite
def events(draw, device=False):
    name, category = draw(
        st.one_of(
            st.tuples(st.sampled_from(NAMES), st.just("cpu_op")),
            st.tuples(st.sampled_from(SCOPES), st.just("user_annotation")),
            *([st.tuples(st.sampled_from(["gemm", "ncclDevKernel_AllReduce"]), st.just("kernel"))] if device else []),
        )
    )
    start = draw(st.integers(0, STEP_NS + 100))
    return TraceEvent(
        name=name,
        category=category,
        start_ns=start,
        end_ns=start + draw(st.integers(0, 600)),
        thread=draw(st.sampled_from(["main", "autograd", "gloo"])) if category != "kernel" else "stream",
        sequence=draw(st.none() | st.integers(0, 3)),
        is_backward=draw(st.booleans()),
        external_id=draw(st.none() | st.integers(0, 5)),
    )


def step_of(found):
    window = TraceEvent(
        name="gnomon::step", category="user_annotation", start_ns=0, end_ns=STEP_NS, thread="main", external_id=99
    )
    (step,) = attribute_steps(sorted([window, *found], key=lambda e: (e.start_ns, -e.end_ns)))
    return step


def busy_ns(found, categories):
    covered = set()
    for event in found:
        if event.category in categories:
            covered.update(range(max(0, event.start_ns), min(STEP_NS, event.end_ns)))
    return len(covered)


@given(st.lists(events(), max_size=30))
def test_terms_of_any_host_trace_fit_into_the_step(found):
    step = step_of(found)
    assert all(seconds >= 0 for seconds in step.terms.values())
    assert sum(step.terms.values()) <= busy_ns(found, {"cpu_op", "user_annotation"}) / 1e9 + 1e-15
    operators = [event for event in found if event.name.startswith(("aten::", "c10d::"))]
    assert sum(step.terms.values()) >= busy_ns(operators, {"cpu_op"}) / 1e9 - 1e-15
    assert sum(seconds for _, seconds in step.operators.values()) == pytest.approx(sum(step.terms.values()))


@given(st.lists(events(), max_size=15), st.lists(events(device=True), max_size=15))
def test_device_time_is_the_union_of_kernels_and_exposed_data(hosts, mixed):
    found = [*hosts, *mixed]
    step = step_of(found)
    if any(event.category == "kernel" for event in found):
        busy = sum(step.terms.values()) - step.terms.get("data_s", 0.0)
        assert busy <= busy_ns(found, {"kernel"}) / 1e9 + 1e-15
        assert sum(step.terms.values()) >= busy_ns(found, {"kernel"}) / 1e9 - 1e-15
    assert sum(step.terms.values()) <= STEP_NS / 1e9 + 1e-15


@given(busy_terms, st.floats(1e-6, 100))
def test_a_breakdown_is_never_negative_and_adds_up_to_the_step(terms, step_time_s):
    breakdown = time_breakdown(terms, step_time_s)
    assert min(breakdown.as_dict().values()) >= 0
    assert breakdown.total_s == pytest.approx(step_time_s, rel=1e-9)
