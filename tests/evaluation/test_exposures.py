import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloom.errors import ConfigError
from recloom.evaluation.exposures import inverse_propensity_rate, replay_rate

SHOWN = np.array([1, 2, 3, 4])
CLICKED = np.array([1, 0, 1, 1])
LISTS = np.array([[1, 2], [1, 2], [1, 2], [4, 0]])  # the third shows an item that is not listed
PROPENSITY = np.array([1 / 4, 1 / 2, 1 / 4, 1 / 3])


def test_replay_is_the_mean_reward_where_the_shown_item_is_listed():
    found = replay_rate(SHOWN, CLICKED, LISTS)
    assert found.mean == pytest.approx(2 / 3)
    assert found.matched == 3
    assert found.low <= found.mean <= found.high


def test_inverse_propensities_equal_fractions_worked_by_hand():
    weights = [(1 / 2) / (1 / 4), (1 / 2) / (1 / 2), 0, 1 / (1 / 3)]  # the fourth list holds a single item
    ips, snips = inverse_propensity_rate(SHOWN, CLICKED, LISTS, PROPENSITY, clip=np.inf)
    assert ips.mean == pytest.approx((weights[0] + weights[3]) / 4)
    assert snips.mean == pytest.approx((weights[0] + weights[3]) / sum(weights))
    assert ips.matched == snips.matched == 3


def test_a_weight_above_the_clip_is_cut_to_it():
    ips, snips = inverse_propensity_rate(SHOWN, CLICKED, LISTS, PROPENSITY, clip=2.5)
    assert ips.mean == pytest.approx((2 + 2.5) / 4)
    assert snips.mean == pytest.approx((2 + 2.5) / (2 + 1 + 2.5))


def test_an_unknown_item_does_not_match_the_padding_of_a_list():
    assert replay_rate(np.array([0, 4]), np.array([1, 0]), np.array([[4, 0], [4, 0]])).matched == 1


def exposures(rng, size):
    """Return the visitors of a site of two tastes and two items, where each taste clicks on its own item.

    Item 1 is clicked by the first taste 8 times in 10, by the second 2 times in 10; item 2 the other way round.
    """
    taste = rng.integers(1, 3, size)
    return taste, lambda shown: (rng.random(size) < np.where(shown == taste, 0.8, 0.2)).astype(float)


def test_estimates_from_a_uniform_log_come_near_the_true_rate():
    rng = np.random.default_rng(0)
    taste, click = exposures(rng, 20_000)
    shown = rng.integers(1, 3, 20_000)
    clicked = click(shown)
    half = np.full(20_000, 1 / 2)
    for lists_NK, truth in ((taste[:, None], 0.8), (np.tile([1, 2], (20_000, 1)), (0.8 + 0.2) / 2)):
        for estimate in (
            replay_rate(shown, clicked, lists_NK),
            *inverse_propensity_rate(shown, clicked, lists_NK, half, clip=10),
        ):
            assert estimate.mean == pytest.approx(truth, abs=0.02)
            assert estimate.low < truth < estimate.high


def test_replay_is_misled_by_a_log_that_knew_the_tastes_and_inverse_propensities_are_not():
    # The log shows each taste its own item 9 times in 10. Item 1 for everybody is clicked by (8/10 + 2/10) / 2, but
    # where the log shows it, it mostly shows it to those who like it: 9/10 * 8/10 + 1/10 * 2/10.
    rng = np.random.default_rng(0)
    taste, click = exposures(rng, 40_000)
    is_own = rng.random(40_000) < 0.9
    shown = np.where(is_own, taste, 3 - taste)
    clicked, propensity = click(shown), np.where(is_own, 0.9, 0.1)
    always_first = np.ones((40_000, 1), dtype=int)
    replay = replay_rate(shown, clicked, always_first)
    assert replay.mean == pytest.approx(9 / 10 * 8 / 10 + 1 / 10 * 2 / 10, abs=0.02)
    assert replay.low > 1 / 2
    for estimate in inverse_propensity_rate(shown, clicked, always_first, propensity, clip=20):
        assert estimate.mean == pytest.approx(1 / 2, abs=0.03)
        assert estimate.low < 1 / 2 < estimate.high


def test_about_95_of_100_intervals_hold_the_true_rate():
    rng = np.random.default_rng(0)
    held = []
    for seed in range(100):
        taste, click = exposures(rng, 500)
        is_own = rng.random(500) < 0.7
        shown = np.where(is_own, taste, 3 - taste)
        log = shown, click(shown), np.ones((500, 1), dtype=int), np.where(is_own, 0.7, 0.3)
        held.append([e.low < 1 / 2 < e.high for e in inverse_propensity_rate(*log, clip=np.inf, seed=seed)])
    for share in np.mean(held, axis=0):
        assert 0.87 <= share <= 1


@given(st.integers(0, 1_000))
@settings(deadline=None)
def test_a_log_of_the_model_itself_gives_its_mean_reward(seed):
    rng = np.random.default_rng(seed)
    lists_NK = rng.permuted(np.tile(np.arange(1, 7), (20, 1)), axis=1)[:, :3]
    shown = rng.permuted(lists_NK, axis=1)[:, 0]
    reward = rng.random(20)
    replay = replay_rate(shown, reward, lists_NK)
    ips, snips = inverse_propensity_rate(shown, reward, lists_NK, np.full(20, 1 / 3), clip=10)
    assert [replay.mean, ips.mean, snips.mean] == pytest.approx([reward.mean()] * 3)


@pytest.mark.parametrize("propensity", [0.0, -0.5, 1.5, np.nan])
def test_a_propensity_has_to_be_a_probability_above_0(propensity):
    with pytest.raises(ConfigError, match=rf"1 propensities are outside \(0, 1\], the first being {propensity}"):
        inverse_propensity_rate(SHOWN, CLICKED, LISTS, np.array([1, 1, propensity, 1]), clip=10)


def test_the_clip_has_to_be_above_0():
    with pytest.raises(ConfigError, match="the clip is 0 and has to be above 0"):
        inverse_propensity_rate(SHOWN, CLICKED, LISTS, PROPENSITY, clip=0)


def test_every_exposure_needs_a_row_in_every_array():
    with pytest.raises(ConfigError, match="of 4, 3, 4 exposures; each needs a row for every exposure"):
        replay_rate(SHOWN, CLICKED[:3], LISTS)
    with pytest.raises(ConfigError, match="of 4, 4, 4, 2 exposures"):
        inverse_propensity_rate(SHOWN, CLICKED, LISTS, PROPENSITY[:2], clip=10)


def test_a_log_that_never_shows_what_the_model_lists_says_nothing():
    with pytest.raises(ConfigError, match="none of 4 shown items is in the model's list at that exposure"):
        replay_rate(SHOWN, CLICKED, LISTS + 10)
