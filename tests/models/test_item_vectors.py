import pytest
import torch

from recloom.models.item_vectors import ItemVectors

TEXT = torch.eye(6)[[0, 0, 1, 2, 3, 1]]  # row 0 is padding; item 5 reads like item 2
TEXT[0] = 0
SEEN = torch.tensor([False, True, True, True, True, False])
FUSIONS = ("id", "text", "sum", "gated", "concat", "init")


def items(fusion, text=TEXT, id_dropout=0.0):
    torch.manual_seed(0)
    made = ItemVectors(5, 8, fusion, text, 4, id_dropout)
    made.prepare(SEEN)
    return made.eval()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_item_never_taken_has_the_vector_of_its_text_alone(fusion):
    made = items(fusion)
    vectors = made(torch.tensor([2, 5]))
    if fusion == "id":
        assert vectors[1].abs().sum() == 0
        return
    if fusion != "text":
        with torch.no_grad():
            made.ids.weight[5] = 100.0  # whatever is there does not count
    assert torch.allclose(made(torch.tensor([5]))[0], vectors[1])
    with_id = made(torch.tensor([2]))[0]
    assert torch.allclose(with_id, vectors[1]) == (fusion == "text")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_text_every_fusion_is_ids_alone(fusion):
    assert items(fusion, text=None).fusion == "id"


@pytest.mark.parametrize("fusion", ["id", "sum"])
def test_a_start_is_taken_over_exactly(fusion):
    made, start = items(fusion), torch.randn(6, 8)
    start[[0, 5]] = 0
    made.start_from(start)
    assert torch.allclose(made(torch.arange(1, 5)), start[1:5], atol=1e-5)


@pytest.mark.parametrize("fusion", ["text", "sum", "init", "gated"])
def test_a_start_places_a_new_item_beside_what_reads_like_it(fusion):
    made, start = items(fusion), torch.randn(6, 8)
    start[[0, 5]] = 0
    made.start_from(start)
    new = torch.nn.functional.normalize(made(torch.tensor([5])), dim=1)
    assert int((torch.nn.functional.normalize(start[1:5], dim=1) @ new[0]).argmax()) + 1 == 2


def test_id_dropout_hides_ids_in_training_only():
    made = items("sum", id_dropout=0.5)
    rows = torch.tensor([1, 2, 3, 4])
    whole = made(rows)
    made.train()
    hidden = torch.stack([made(rows) for _ in range(200)])
    text_alone = made.from_text(made.text_IF[rows])
    is_text = (hidden - text_alone).abs().sum(dim=2) == 0
    assert 0.4 < is_text.float().mean() < 0.6
    assert torch.allclose(hidden[~is_text], whole.expand_as(hidden)[~is_text])


def test_weights_that_are_loaded_bring_their_text_features():
    made, other = items("sum"), ItemVectors(5, 8, "sum", TEXT, 4, 0.0).eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(torch.arange(6)), made(torch.arange(6)))
