"""The whole flow on a Ray cluster of two nodes on this machine."""

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

from recloom.bulk import Asked, write_lists
from recloom.cluster import connected, connection
from recloom.cluster.answering import answer_on_cluster, rank_on_cluster
from recloom.cluster.encoding import encode_on_cluster
from recloom.cluster.preparation import prepare_on_cluster
from recloom.cluster.tasks import spread
from recloom.dataset import Dataset
from recloom.encoders import encode_texts, encoding, item_texts, load_encoder
from recloom.errors import ConfigError, DataError
from recloom.events import Synthetic, write_synthetic
from recloom.recommender import Recommender
from recloom.run_config import EncoderConfig
from tests.cluster.conftest import add_node

# What Ray and its parts say while they start and stop is theirs.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]
ML_1M = Path(__file__).parents[3] / "shared" / "data" / "ml-1m"


@pytest.fixture(scope="module")
def two_nodes():
    """Start a head node and another node, and be part of them."""
    connection.import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        add_node(cluster, num_cpus=2, include_dashboard=False)
        add_node(cluster, num_cpus=2)
        with connected(cluster.address) as joined:
            yield joined
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Make up a log of a few thousand interactions in several files."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder / "log", Synthetic(users=300, items=80, interactions=6_000))
    log = pl.read_parquet(folder / "log" / "interactions").sample(fraction=1, shuffle=True, seed=0)
    (folder / "parts").mkdir()
    for part in range(3):
        log[part::3].write_parquet(folder / "parts" / f"{part}.parquet")
    return folder


@pytest.fixture(scope="module")
def model(synthetic):
    """Fit a model that is quick to fit."""
    dataset = Dataset.from_files(synthetic / "parts", items=synthetic / "log" / "items", out=synthetic / "once")
    Recommender.fit(dataset, "item-knn").save(synthetic / "model")
    return synthetic / "model"


def lists_in(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "part-*.parquet")


def test_a_made_up_log_goes_all_the_way_and_a_worker_is_killed(two_nodes, synthetic, model, tmp_path):
    assert two_nodes.nodes >= 2
    assert not two_nodes.is_new
    once = Dataset.open(synthetic / "once")
    parts, *_ = prepare_on_cluster(
        [str(synthetic / "parts")],
        str(synthetic / "log" / "items"),
        out=tmp_path / "parts",
        rows_of_a_part=2_500,
    )
    assert parts.fingerprint == once.fingerprint

    texts = item_texts(parts.item_table, None)
    hashing = load_encoder("hashing")
    here = encode_texts(hashing, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "TEXTS_BETWEEN_LOOKS", 30)
        there = encode_texts(
            hashing,
            texts,
            cache=tmp_path / "embeddings.h5",
            elsewhere=encode_on_cluster(EncoderConfig(name="hashing"), workers=1),
        )
    assert np.array_equal(there, here)
    assert np.array_equal(encode_texts(hashing, texts, cache=tmp_path / "embeddings.h5", elsewhere=no_one), here)

    asked = Asked(model=str(model), k=5, queries_of_a_part=70)
    killed = tmp_path / "killed"

    def answer_or_die(part, recommender, asked, out):
        import os

        from recloom.bulk import answer_part

        if part.number == 2 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return answer_part(part, recommender, asked, out)

    def answers(parts, asked, out):
        load = lambda asked, _: asked.load()  # noqa: E731 -- travels as code, as this module is not there
        return (written for _, written in spread(parts, answer_or_die, (asked, out), loaded=load, workers=1))

    write_lists(asked, tmp_path / "here")
    write_lists(asked, tmp_path / "there", answers)
    assert killed.exists()
    assert lists_in(tmp_path / "there").equals(lists_in(tmp_path / "here"))
    assert (tmp_path / "there" / "lists.json").read_text() == (tmp_path / "here" / "lists.json").read_text()

    recommender = Recommender.load(model)
    alone, spread_out = recommender.evaluate(), recommender.evaluate(rank=rank_on_cluster(model))
    assert spread_out.metrics == alone.metrics
    assert spread_out.slices == alone.slices


def no_one(blocks):
    """Stand for workers that are not to be asked."""
    assert not blocks
    return []


def test_what_a_worker_finds_wrong_is_said_in_its_own_words(two_nodes, synthetic, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for path in (synthetic / "parts").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"1.parquet is damaged.*the other 2 files are done and kept") as error:
        prepare_on_cluster([str(folder)], out=tmp_path / "dataset")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "dataset").exists()


def test_a_disk_that_a_worker_cannot_write_to_is_said_as_on_one_machine(two_nodes):
    def write(job):
        raise OSError(28, "No space left on device", "part-00000.parquet")

    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: 'part-00000.parquet'$"):
        list(spread([0], write))


def test_an_error_may_be_a_result(two_nodes):
    ((place, result),) = spread([0], lambda job: DataError("for whoever asked to judge"))
    assert (place, str(result)) == (0, "for whoever asked to judge")


def test_a_node_with_another_recloom_is_refused(two_nodes, monkeypatch):
    monkeypatch.setattr(connection, "__version__", "9.9")
    refused = pytest.raises(ConfigError, match=r"has recloom \d.*, and this is recloom 9.9; install the same one")
    with refused, connected(two_nodes.address):
        pass


@pytest.mark.skipif(not ML_1M.exists(), reason="MovieLens 1M is not here")
def test_movielens_1m_is_the_same_as_on_one_machine(two_nodes, tmp_path):
    items, users = str(ML_1M / "items.csv.gz"), str(ML_1M / "users.csv.gz")
    log = pl.read_csv(ML_1M / "interactions.csv.gz")
    (tmp_path / "log").mkdir()
    for part in range(4):
        log[part * 260_000 : (part + 1) * 260_000].write_parquet(tmp_path / "log" / f"{part}.parquet")
    once = Dataset.from_files(tmp_path / "log", items, users, out=tmp_path / "once")
    parts, *_ = prepare_on_cluster(
        [str(tmp_path / "log" / "*.parquet")], items, users, out=tmp_path / "parts", rows_of_a_part=500_000
    )
    assert parts.fingerprint == once.fingerprint
    hashing, texts = load_encoder("hashing"), item_texts(parts.item_table, None)
    there = encode_texts(hashing, texts, elsewhere=encode_on_cluster(EncoderConfig(name="hashing"), workers=1))
    assert np.array_equal(there, encode_texts(hashing, texts))
    Recommender.fit(parts, "popular-recent").save(tmp_path / "model")
    asked = Asked(model=str(tmp_path / "model"), queries_of_a_part=2_000)
    write_lists(asked, tmp_path / "here")
    write_lists(asked, tmp_path / "there", answer_on_cluster)
    assert lists_in(tmp_path / "there").equals(lists_in(tmp_path / "here"))
    assert json.loads((tmp_path / "there" / "lists.json").read_text())["queries"] == len(once.users)
