import pytest

from recloom import Recommender
from recloom.cli.fit import fit
from recloom.cluster.training import RayFitter, _room
from recloom.errors import ConfigError


def node(cpus, gpus=0, alive=True):
    return {"Alive": alive, "Resources": {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})}


def test_workers_part_the_cpus_of_each_node():
    assert _room([node(8), node(4)], 3, None) == (3, {"CPU": 4.0}, False)
    assert _room([node(8), node(4)], 4, None) == (4, {"CPU": 2.0}, False)


def test_without_a_number_there_is_a_worker_for_each_gpu_or_else_each_node():
    assert _room([node(8, gpus=4), node(8, gpus=4)], None, None) == (8, {"CPU": 2.0, "GPU": 1.0}, True)
    assert _room([node(8, gpus=4), node(8, gpus=4)], None, "cpu") == (2, {"CPU": 8.0}, False)
    assert _room([node(0), node(3), node(3)], None, None) == (2, {"CPU": 3.0}, False)


def test_a_cluster_that_is_still_to_grow_is_asked_for_as_many_workers_as_are_wanted():
    assert _room([node(2), node(9, alive=False)], 3, None) == (3, {"CPU": 1.0}, False)
    assert _room([node(0)], 8, None) == (8, {"CPU": 1.0}, False)
    assert _room([node(0)], 8, "cuda") == (8, {"CPU": 1.0, "GPU": 1.0}, True)


def test_without_a_number_there_has_to_be_something_to_count():
    with pytest.raises(ConfigError, match="no node with a CPU now; start one, or say with --workers how many"):
        _room([node(0)], None, None)
    with pytest.raises(ConfigError, match=r"training\.device is cuda, and the Ray cluster has no GPU now"):
        _room([node(8)], None, "cuda")


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("popular", {}, "popular is counted in one pass and has no gradient steps to share; leave --ray out"),
        ("weave", {"privacy": {"epsilon": 3.0}}, "privacy.epsilon is for fitting on one machine"),
        ("weave", {"privacy": {"shards": 2}}, "privacy.shards is for fitting on one machine"),
    ],
)
def test_what_only_one_machine_can_fit_is_refused_before_anything_is_read(cycle_dataset, model, settings, message):
    with pytest.raises(ConfigError, match=message):
        Recommender.fit(cycle_dataset, model, settings=settings, fitter=RayFitter(2))


def test_workers_without_a_cluster_are_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="--workers is for training on a Ray cluster; add --ray"):
        fit(tmp_path / "dataset", tmp_path / "model", workers=2)
