import numpy as np
import pytest

from recloom.encoders import load_encoder

ENCODER = load_encoder("hashing")


def cosine(one: str, other: str) -> float:
    first, second = ENCODER.encode([one, other])
    return float(first @ second)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("red summer dress", "summer dresses", "wireless phone charger"),
        ("Toy Story (1995)", "Toy Story 2 (1999)", "Pulp Fiction (1994)"),
        ("智能手机", "手机", "连衣裙"),
        ("🎮🎮", "🎮🎮", "🎸"),
    ],
)
def test_texts_that_share_words_or_pieces_of_words_are_nearer(text, near, far):
    assert cosine(text, near) > cosine(text, far) + 0.3


def test_every_text_with_a_character_has_a_unit_vector():
    vectors = ENCODER.encode(["a", "!!!", "电", "🎮", "red dress"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_a_word_is_hashed_to_the_same_places_in_every_process_and_version():
    assert ENCODER.encode(["red"])[0].nonzero()[0].tolist() == [179, 269, 310, 316, 327, 351]
