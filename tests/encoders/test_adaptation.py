import numpy as np
import pytest

from recloom import Dataset, Recommender
from recloom.dataset import SplitConfig
from recloom.encoders import AdaptationConfig, adapt_encoder, load_encoder, read_adaptation
from recloom.errors import ConfigError, TrainingError

pytest.importorskip("peft", reason="the extra 'adapt' is not installed")

TITLES = ["red dress", "great film", "blue shoe", "pulp fiction", "toy story", "a phone"]
QUICK = AdaptationConfig(steps=150, batch_size=8, learning_rate=0.01, rank=8)
LEAVE_ONE_OUT = SplitConfig(protocol="leave-one-out")


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Red dresses go with films, shoes with fiction, and stories with phones: nothing the words say."""
    log = [
        f"u{u:02},{item},{1_000 + step}" for u in range(30) for step, item in enumerate((2 * (u % 3), 2 * (u % 3) + 1))
    ]
    log += [f"u{u:02},{5 - u % 3},{2_000 + step}" for u in range(30) for step in range(2)]  # held out
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(f"{i},{t}" for i, t in enumerate(TITLES)))
    return Dataset.from_files(tmp_path / "log.csv", tmp_path / "items.csv")


def cosines(folder):
    vectors = load_encoder(str(folder)).encode(TITLES)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.mark.parametrize("model", ["bert_folder", "gpt_folder"])
def test_texts_taken_together_move_together(model, dataset, tmp_path, request):
    source = request.getfixturevalue(model)
    losses = adapt_encoder(dataset, tmp_path / "adapted", encoder=str(source), split=LEAVE_ONE_OUT, config=QUICK)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    cosine = cosines(tmp_path / "adapted")
    together = [cosine[i, i + 1] for i in (0, 2, 4)]
    apart = [cosine[i, j] for i in (0, 2, 4) for j in range(6) if j not in (i, i + 1)]
    assert np.mean(together) > max(apart)
    assert not np.allclose(cosine, cosines(source))


def test_an_adapted_model_is_refused_where_it_would_have_seen_the_answers(dataset, bert_folder, tmp_path):
    adapted = tmp_path / "adapted"
    adapt_encoder(
        dataset, adapted, encoder=str(bert_folder), split=LEAVE_ONE_OUT, config=AdaptationConfig(steps=1, batch_size=4)
    )
    assert read_adaptation(adapted)["dataset"] == dataset.fingerprint
    settings = {"encoder": {"name": str(adapted)}, "training": {"epochs": 1}}
    Recommender.fit(dataset, settings=settings | {"split": {"protocol": "leave-one-out"}})
    with pytest.raises(ConfigError, match="adapt it under the same split"):
        Recommender.fit(dataset, settings=settings)


def test_there_has_to_be_something_to_learn_from(dataset_of, bert_folder, tmp_path):
    lonely = dataset_of(["u1,a,1", "u2,b,2"], ["a,red dress", "b,blue shoe"])
    with pytest.raises(TrainingError, match="found 0 such pairs"):
        adapt_encoder(lonely, tmp_path / "out", encoder=str(bert_folder))
    with pytest.raises(ConfigError, match="no text columns"):
        adapt_encoder(dataset_of(["u1,a,1", "u1,b,2"]), tmp_path / "out", encoder=str(bert_folder))
    with pytest.raises(ConfigError, match="no weights here"):
        adapt_encoder(lonely, tmp_path / "out", encoder="hashing")
