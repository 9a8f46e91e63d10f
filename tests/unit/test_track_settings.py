"""What trackers can be told, and what is refused at once."""

import pytest

from gnomon.errors import ConfigError
from gnomon.runtime.environment import RankEnvironment
from gnomon.spec import Noun
from gnomon.track import registry
from gnomon.track.base import KINDS, Item
from gnomon.track.collection import create_trackers
from gnomon.track.conformance import create_run
from gnomon.track.lines import read_lines
from gnomon.track.registry import Trackers, list_trackers, parse_trackers
from gnomon.track.settings import MLflowSettings, TrackerSettings


class Configured(Noun):
    trackers: Trackers = ()


def environment(rank: int = 0, ranks: int = 1) -> RankEnvironment:
    return RankEnvironment(rank=rank, local_rank=rank, world_size=ranks, local_world_size=ranks)


def test_the_trackers_of_the_package_are_found_by_name():
    assert {"console", "jsonl", "mlflow", "prov", "tensorboard", "wandb"} <= set(list_trackers())


def test_names_and_mappings_make_settings_of_the_right_class():
    name, mapping = parse_trackers(["prov", {"name": "mlflow", "tracking_uri": "http://a:1", "ranks": [0, 2]}])
    assert name.name == "prov"
    assert isinstance(mapping, MLflowSettings)
    assert (mapping.tracking_uri, mapping.ranks, mapping.leader) == ("http://a:1", (0, 2), 0)
    assert parse_trackers("prov") == (name,)
    assert parse_trackers(None) == ()


def test_a_noun_that_holds_them_comes_back_from_json_without_loss():
    noun = Configured.from_mapping({"trackers": ["console", {"name": "wandb", "mode": "offline", "kinds": ["metric"]}]})
    assert Configured.from_mapping(noun.to_mapping()) == noun
    assert noun.to_mapping()["trackers"][1]["mode"] == "offline"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mlfow", r"There is no tracker 'mlfow'. Did you mean 'mlflow'\?"),
        ({"name": "mlflow", "experiment": "a"}, r"unknown key 'experiment'. Did you mean 'experiment_name'\?"),
        (
            {"name": "tensorboard", "kinds": ["metric", "model"]},
            "does not take items of kind 'model'. It takes: metric",
        ),
        ({"name": "tensorboard", "kinds": ["metrics"]}, "'kinds.0' is 'metrics'"),
        (["prov", {"name": "prov"}], "trackers names 'prov' twice"),
        ({"name": "prov", "every": 0}, "every"),
        ({"name": "prov", "ranks": -2}, "ranks"),
        ({"name": "prov", "ranks": []}, "ranks is an empty list"),
        ({"uri": "a"}, "Give the name of a tracker"),
        ([3], "Give the name of a tracker"),
        ({"name": "jsonl", "every": 3}, "unknown key 'every'"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_configured(given, message):
    with pytest.raises(ConfigError, match=message):
        parse_trackers(given)


def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setattr(registry.sys, "modules", {})
    with pytest.raises(ConfigError, match=r"'prov' needs prov, which is not installed: pip install 'gnomon\[track\]'"):
        parse_trackers("prov")


def test_a_rank_that_the_run_does_not_have_is_refused(tmp_path):
    settings = parse_trackers({"name": "prov", "ranks": [0, 4]})
    with pytest.raises(ConfigError, match="has ranks=4, but the run has 2 ranks, counted from 0"):
        create_trackers(settings, create_run(tmp_path), environment(ranks=2), 10)


@pytest.mark.parametrize(("ranks", "wanted"), [(0, [0]), (2, [2]), (-1, [0, 1, 2]), ((0, 2), [0, 2])])
def test_ranks(ranks, wanted):
    settings = TrackerSettings(name="prov", ranks=ranks)
    assert [rank for rank in range(3) if settings.wants_rank(rank)] == wanted
    assert settings.leader == wanted[0]


ROWS = [{"step": step, "loss": 1.0} for step in range(1, 7)]
SUMMARIES = [{"step": 4, "eval_loss": 1.0}, {"step": 5, "epoch": 1, "loss": 1.0}]


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (3, [3, 6]), ("epoch", [])])
def test_every_n_steps_or_epochs_and_summaries_always(every, steps):
    settings = TrackerSettings(name="prov", every=every)
    assert [row["step"] for row in ROWS if settings.wants_row(row)] == steps
    assert all(settings.wants_row(row) for row in SUMMARIES)
    assert not any(TrackerSettings(name="prov", every=every, kinds=("param",)).wants_row(row) for row in ROWS)


def test_items_go_to_those_who_can_take_and_want_them():
    everything = frozenset(KINDS)
    assert TrackerSettings(name="prov").wants_item("model", everything)
    assert not TrackerSettings(name="prov").wants_item("model", frozenset({"metric"}))
    assert not TrackerSettings(name="prov", kinds=("metric",)).wants_item("model", everything)


def test_a_rank_that_nobody_tracks_writes_nothing(tmp_path):
    run = create_run(tmp_path)
    tracker = create_trackers(parse_trackers({"name": "prov", "ranks": 0}), run, environment(1, 2), 10)
    tracker.log({"step": 1, "loss": 1.0})
    tracker.record(Item(kind="text", name="a", value="b"))
    tracker.close()
    assert not (run.path / "tracking").exists()


def test_a_rank_that_is_tracked_has_rows_of_its_own(tmp_path):
    run = create_run(tmp_path)
    tracker = create_trackers(parse_trackers({"name": "jsonl", "ranks": -1}), run, environment(1, 2), 10)
    tracker.log({"step": 1, "loss": 1.0})
    tracker.close()
    assert (run.path / "tracking/rank-1/metrics.jsonl").read_text().startswith('{"step": 1, "loss": 1.0')
    assert not run.metrics.exists()


def test_a_resumed_run_writes_the_rows_of_every_rank_again_once(tmp_path):
    run, settings = create_run(tmp_path), parse_trackers({"name": "jsonl", "ranks": -1})
    for steps in ([1, 2, 3, 4], [3, 4, 5]):
        trackers = [create_trackers(settings, run, environment(rank, 2), 10) for rank in (0, 1)]
        for tracker in trackers:
            for step in steps:
                tracker.log({"step": step, "loss": 1.0})
            tracker.close()
        if steps[0] == 1:
            run.keep_metrics(row for row in run.read_metrics() if row["step"] <= 2)
    rows = read_lines(run.path / "tracking/rank-1/metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
