import numpy as np
import pytest
import torch

from recloom.models.text_features import Whitening


def test_features_of_many_items_are_uncorrelated_with_unit_variance():
    mixing = np.random.default_rng(0).normal(size=(6, 6))
    embeddings = torch.from_numpy(np.random.default_rng(1).normal(size=(20_000, 6)) @ mixing + 5).float()
    whitening = Whitening(6, 4)
    whitening.fit(embeddings)
    assert np.cov(whitening(embeddings).numpy().T) == pytest.approx(np.eye(4), abs=0.01)


def test_few_items_keep_who_is_like_whom():
    embeddings = torch.zeros(5, 64)
    embeddings[:3, 0] = torch.tensor([1.0, 1.1, 1.2])
    embeddings[3:, 1] = 1.0
    whitening = Whitening(64, 32)
    whitening.fit(embeddings)
    features = torch.nn.functional.normalize(whitening(embeddings), dim=1)
    assert features[0] @ features[1] > 0.9
    assert features[0] @ features[3] < 0


def test_an_item_without_text_has_no_features():
    whitening = Whitening(4, 4)
    whitening.fit(torch.randn(10, 4))
    assert whitening(torch.zeros(1, 4)).abs().sum() == 0
