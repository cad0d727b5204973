import numpy as np
import pytest
import torch

from recloom.models.text_features import EXPONENT, Whitening, partial_whitening


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


def test_catalogues_that_differ_in_where_they_vary_are_evened_out():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(5_000, 4, generator=generator) * torch.tensor([4.0, 1.0, 1.0, 0.25]) + 3.0
    mean_F, matrix_FF = partial_whitening(wide)
    deviation_F = ((wide - mean_F) @ matrix_FF).std(dim=0)
    wanted = torch.tensor([4.0, 1.0, 1.0, 0.25]) ** (1 - EXPONENT)
    torch.testing.assert_close(deviation_F, wanted, rtol=0.03, atol=0.0)  # in place: nothing is turned


def test_directions_learned_elsewhere_are_evened_out_over_the_own_catalogue():
    generator = torch.Generator().manual_seed(0)
    elsewhere, here = Whitening(6, 3), Whitening(6, 3)
    elsewhere.fit(torch.randn(500, 6, generator=generator))
    own = torch.randn(5_000, 6, generator=generator) * torch.tensor([1.0, 5.0, 1.0, 1.0, 1.0, 1.0]) + 2.0
    here.begin_with(elsewhere.projection_EF, own)
    as_it_was = (own - own.mean(dim=0)) @ elsewhere.projection_EF

    def unevenness(features_NF):
        variance_F = torch.linalg.eigvalsh(features_NF.T.cov())
        return variance_F[-1] / variance_F[0]

    assert here(own).mean(dim=0).abs().max() < 1e-3
    assert unevenness(here(own)) < unevenness(as_it_was) ** 0.3
