import json

import numpy as np
import pytest

from recloom import Dataset, Recommender
from recloom.cli import main
from recloom.encoders import DistillationConfig, distill_encoder, load_encoder
from recloom.encoders.distillation import RECORD_NAME
from recloom.errors import ConfigError, TrainingError

THINGS = ["red dress", "great film", "blue shoe", "pulp fiction", "toy story", "a phone", "bug life", "heat"]
TITLES = [f"{one} {other}" for one in THINGS for other in THINGS if one != other]
QUICK = DistillationConfig(num_layers=1, epochs=20, batch_size=8, learning_rate=0.005)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    log = [f"u{user},{(user + step) % 56},{1_000 + step}" for user in range(20) for step in range(4)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(f"{i},{t}" for i, t in enumerate(TITLES)))
    return Dataset.from_files(tmp_path / "log.csv", tmp_path / "items.csv")


def unit(folder) -> np.ndarray:
    vectors = load_encoder(str(folder)).encode(TITLES)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("num_layers", [0, 1])
def test_a_student_learns_to_read_as_its_teacher_does(num_layers, dataset, bert_folder, tmp_path):
    config = DistillationConfig(num_layers=num_layers, epochs=20, batch_size=8, learning_rate=0.005)
    first = DistillationConfig(num_layers=num_layers, epochs=1, learning_rate=1e-9)
    untaught = distill_encoder(dataset, tmp_path / "untaught", encoder=str(bert_folder), config=first)
    record = distill_encoder(dataset, tmp_path / "student", encoder=str(bert_folder), config=config)
    # Examined on 6 of 56 texts that it has not read.
    assert (record.texts, record.examined) == (50, 6)
    assert 1 - record.cosine < (1 - untaught.cosine) / 3
    assert (unit(tmp_path / "student") * unit(bert_folder)).sum(axis=1).mean() > 0.8
    assert record.bytes < record.teacher_bytes
    assert json.loads((tmp_path / "student" / RECORD_NAME).read_text())["cosine"] == record.cosine
    teacher, student = load_encoder(str(bert_folder)), load_encoder(str(tmp_path / "student"))
    assert record.teacher == teacher.fingerprint
    assert teacher.fingerprint.split("model=")[1] != student.fingerprint.split("model=")[1]
    assert student.embedding_dim == teacher.embedding_dim


def test_a_student_reads_the_catalogue_of_a_fit_and_items_that_come_later(dataset, bert_folder, tmp_path):
    distill_encoder(dataset, tmp_path / "student", encoder=str(bert_folder), config=QUICK)
    settings = {"encoder": {"name": str(tmp_path / "student")}, "training": {"epochs": 1}}
    recommender = Recommender.fit(dataset, settings=settings)
    new = tmp_path / "new.csv"
    new.write_text("item_id,title\nnew,red dress great film\n")
    grown = recommender.with_items(new)
    student = load_encoder(str(tmp_path / "student"))
    assert np.allclose(grown.text.vectors_IE[-1], student.encode(["red dress great film"])[0], atol=1e-5)


def test_the_command_says_what_came_of_it(dataset, bert_folder, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "dataset"
    folder.mkdir()
    dataset.copy_to(folder)

    def type_in(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["recloom", "distill", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    taught = ["--encoder", bert_folder, "--set", "distillation.epochs=1", "--set", "distillation.num_layers=1"]
    assert type_in(folder, "--out", tmp_path / "student", *taught) == 0
    assert "On 6 texts it had not read" in capsys.readouterr().out
    assert type_in(folder, "--out", tmp_path / "student", *taught) == 0  # a student takes the place of another
    assert type_in(folder, "--out", tmp_path / "other", "--set", "encoder.int8=true") == 2
    assert "encoder.int8 has no meaning here" in capsys.readouterr().err


def test_a_teacher_has_to_be_a_bert_with_layers_to_spare(dataset, gpt_folder, bert_folder, tmp_path):
    out = tmp_path / "student"
    with pytest.raises(ConfigError, match=r"made of a BERT's own layers, and the encoder .* is a LlamaModel"):
        distill_encoder(dataset, out, encoder=str(gpt_folder))
    with pytest.raises(ConfigError, match=r"num_layers is 2, and the encoder .* has 2 layers"):
        distill_encoder(dataset, out, encoder=str(bert_folder))
    with pytest.raises(ConfigError, match="hashing has no layers here"):
        distill_encoder(dataset, out, encoder="hashing")
    with pytest.raises(ConfigError, match="holds something that is not a student"):
        distill_encoder(dataset, tmp_path, encoder=str(bert_folder))
    assert not out.exists()


def test_there_have_to_be_texts_to_learn_from(dataset_of, bert_folder, tmp_path):
    with pytest.raises(ConfigError, match="no text columns, so there is nothing to teach"):
        distill_encoder(dataset_of(["u1,a,1", "u1,b,2"]), tmp_path / "out", encoder=str(bert_folder), config=QUICK)
    two = dataset_of(["u1,a,1", "u2,b,2"], ["a,red dress", "b,blue shoe"])
    with pytest.raises(TrainingError, match="taught on different texts and examined on others; found 2"):
        distill_encoder(two, tmp_path / "out", encoder=str(bert_folder), config=QUICK)
