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


def test_more_workers_than_there_is_room_for_are_refused_at_once():
    with pytest.raises(ConfigError, match="--workers 3 is more than the Ray cluster has room for: 2 CPUs on 1 nodes"):
        _room([node(2), node(9, alive=False)], 3, None)
    with pytest.raises(ConfigError, match=r"training\.device is cuda, and the Ray cluster has 1 GPUs for 2 workers"):
        _room([node(8, gpus=1)], 2, "cuda")


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
