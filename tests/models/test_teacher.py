import numpy as np
import pytest
import torch

from recloom.dataset import Segments, gather
from recloom.errors import ConfigError
from recloom.models import MODELS, Teacher, TrainingData
from recloom.training import TrainingConfig, train
from tests.conftest import CYCLE, fake_text


def prepared(name, dataset, **options):
    torch.manual_seed(0)
    if name == "weave":
        options = {"embedding_dim": 64, "hidden_dim": 64} | options
    model = MODELS[name](MODELS[name].Config(max_length=8, **options), dataset, fake_text(dataset))
    data = TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]))
    model.prepare(data)
    return model, data


def histories(dataset, length=4):
    starts = dataset.user_offsets[1 : CYCLE + 1]
    return gather(dataset, starts, starts + length, 8)


@pytest.mark.parametrize("name", ["weave", "lm-fusion"])
def test_a_teachers_last_step_is_its_query(name, cycle_dataset):
    model, _ = prepared(name, cycle_dataset)
    batch = histories(cycle_dataset)
    model.eval()
    width = model.step_queries(batch).shape[2]
    assert torch.allclose(model.step_queries(batch)[:, -1], model.queries(batch)[:, :width], atol=1e-5)


@pytest.mark.parametrize("name", ["weave", "lm-fusion"])
def test_a_pupil_that_hears_nothing_but_its_teacher_agrees_with_it(name, cycle_dataset):
    model, data = prepared(name, cycle_dataset)
    train(model, data, TrainingConfig(epochs=25, batch_size=64, learning_rate=0.01), validate=None)
    pupil, _ = prepared("weave", cycle_dataset, network="gru", warm_start=False)
    pupil.learn_from(Teacher(model, share=1.0))
    train(pupil, data, TrainingConfig(epochs=25, batch_size=64, learning_rate=0.01), validate=None)
    batch = histories(cycle_dataset)

    def choice(one):
        one.eval()
        with torch.no_grad():
            return (one.queries(batch) @ one.item_vectors().T)[:, 1:].argmax(dim=1).numpy()

    assert np.array_equal(choice(pupil), choice(model))


def test_disagreement_is_the_cross_entropy_of_the_teachers_shares(cycle_dataset):
    model, _ = prepared("weave", cycle_dataset)
    teacher = Teacher(model, share=0.5)
    items = model.item_vectors().detach()
    query, target, others = items[3:4] * 2, torch.tensor([3]), torch.tensor([1, 2])
    scores = torch.tensor([[0.5, 0.1, -0.4]])
    shares = (query @ items[[3, 1, 2]].T).softmax(dim=1)
    expected = -(shares * scores.log_softmax(dim=1)).sum()
    assert float(teacher.disagreement(query, target, others, scores)) == pytest.approx(float(expected), rel=1e-5)


def test_who_cannot_teach_or_learn_says_so(cycle_dataset):
    both_ways, _ = prepared("weave", cycle_dataset, network="bert4rec")
    with pytest.raises(ConfigError, match="cannot teach"):
        both_ways.step_queries(histories(cycle_dataset))
    lm_fusion, _ = prepared("lm-fusion", cycle_dataset)
    with pytest.raises(ConfigError, match="lm-fusion cannot learn from a teacher; weave can"):
        lm_fusion.learn_from(Teacher(prepared("weave", cycle_dataset)[0], share=0.5))
