import time
import warnings

import h5py
import numpy as np
import pytest

from recloom.encoders import check_embeddings, encode_texts, encoding, load_encoder
from recloom.encoders.cache import EmbeddingCache
from recloom.encoders.checks import check_alignment
from recloom.errors import EncodingError

TEXTS = [f"item number {n} {['red', 'blue', 'green'][n % 3]}" for n in range(50)]


class CountingEncoder:
    """The hashing encoder, remembering what it was asked, and spoiling its answer on request."""

    def __init__(self, spoil=lambda vectors: vectors, fingerprint="counting"):
        self._inner = load_encoder("hashing")
        self._spoil = spoil
        self.fingerprint = fingerprint
        self.embedding_dim = self._inner.embedding_dim
        self.asked: list[str] = []

    def encode(self, texts, *, progress=None):
        self.asked += texts
        if progress:
            progress(len(texts), len(texts))
        return self._spoil(self._inner.encode(texts))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "embeddings.h5"


def test_row_i_is_text_i_also_with_repeats_and_empty_texts():
    texts = ["red dress", "", "blue shoe", "red dress", "  "]
    vectors = encode_texts(load_encoder("hashing"), texts)
    alone = load_encoder("hashing").encode(["red dress", "blue shoe"])
    np.testing.assert_array_equal(vectors, [alone[0], np.zeros(512), alone[1], alone[0], np.zeros(512)])
    assert vectors.dtype == np.float32


def test_no_texts_give_no_rows(cache):
    assert encode_texts(CountingEncoder(), [], cache=cache).shape == (0, 512)
    assert not cache.exists()


def test_each_different_text_is_encoded_once_and_empty_ones_never(monkeypatch):
    monkeypatch.setattr(encoding, "check_alignment", lambda *_: None)
    encoder = CountingEncoder()
    encode_texts(encoder, ["a", "", "b", "a", " "])
    assert encoder.asked == ["a", "b"]


def test_a_second_run_encodes_nothing_and_gives_the_same(cache):
    first = encode_texts(CountingEncoder(), TEXTS, cache=cache)
    again = CountingEncoder()
    np.testing.assert_array_equal(encode_texts(again, TEXTS[::-1], cache=cache), first[::-1])
    assert again.asked == []


def test_a_new_item_costs_only_itself(cache):
    encode_texts(CountingEncoder(), TEXTS, cache=cache)
    again = CountingEncoder()
    encode_texts(again, [*TEXTS, "a new item"], cache=cache)
    assert again.asked == ["a new item"]


def test_another_encoder_shares_the_file_but_not_the_vectors(cache):
    encode_texts(CountingEncoder(), TEXTS, cache=cache)
    other = CountingEncoder(fingerprint="other")
    encode_texts(other, TEXTS, cache=cache)
    assert set(other.asked) == set(TEXTS)
    with h5py.File(cache) as file:
        assert {group.attrs["fingerprint"] for group in file.values()} == {"counting", "other"}


def test_progress_counts_up_to_the_number_of_new_texts(monkeypatch):
    monkeypatch.setattr(encoding, "TEXTS_BETWEEN_LOOKS", 20)
    seen = []
    encode_texts(CountingEncoder(), TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(20, 50), (40, 50), (50, 50)]


def test_a_kill_in_a_long_job_loses_only_what_was_not_written_yet(cache, monkeypatch):
    monkeypatch.setattr(encoding, "TEXTS_BETWEEN_LOOKS", 10)
    monkeypatch.setattr(encoding, "SECONDS_BETWEEN_WRITES", 0.0)
    calls = []

    def die_in_the_third_block(vectors):
        calls.append(len(vectors))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return vectors

    with pytest.raises(KeyboardInterrupt):
        encode_texts(CountingEncoder(die_in_the_third_block), TEXTS, cache=cache)
    monkeypatch.setattr(encoding, "check_alignment", lambda *_: None)
    again = CountingEncoder()
    encode_texts(again, TEXTS, cache=cache)
    assert again.asked == TEXTS[20:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not HDF5"),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: _flip_bytes_of_vectors(path),
        lambda path: _drop_vectors(path),
    ],
    ids=["foreign", "truncated", "empty", "rotten", "incomplete"],
)
def test_a_damaged_cache_is_set_aside_with_one_warning_and_built_anew(cache, damage):
    first = encode_texts(CountingEncoder(), TEXTS, cache=cache)
    damage(cache)
    with pytest.warns(UserWarning, match=r"cannot be read; it was set aside as embeddings.damaged.h5") as caught:
        vectors = encode_texts(CountingEncoder(), TEXTS, cache=cache)
    assert len(caught) == 1
    np.testing.assert_array_equal(vectors, first)
    again = CountingEncoder()
    encode_texts(again, TEXTS, cache=cache)
    assert again.asked == []


def _flip_bytes_of_vectors(path):
    with h5py.File(path) as file:
        vectors = next(iter(file.values()))["vectors"]
        offset = vectors.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 0xFF
    path.write_bytes(content)


def _drop_vectors(path):
    with h5py.File(path, "a") as file:
        del next(iter(file.values()))["vectors"]


def test_a_cache_that_cannot_be_written_costs_one_warning_and_no_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "TEXTS_BETWEEN_LOOKS", 10)
    monkeypatch.setattr(encoding, "SECONDS_BETWEEN_WRITES", 0.0)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        vectors = encode_texts(CountingEncoder(), TEXTS, cache=in_the_way / "embeddings.h5")
    assert len(caught) == 1
    assert vectors.any(axis=1).all()


def test_a_full_disk_costs_a_warning_and_leaves_the_old_cache_whole(cache, monkeypatch):
    encode_texts(CountingEncoder(), TEXTS, cache=cache)
    before = cache.read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recloom.encoders.cache.shutil.copyfile", no_space)
    with pytest.warns(UserWarning, match="No space left on device"):
        encode_texts(CountingEncoder(), [*TEXTS, "new"], cache=cache)
    assert cache.read_bytes() == before
    assert [path.name for path in cache.parent.iterdir()] == ["embeddings.h5"]


def test_two_writers_keep_a_readable_file_without_repeated_keys(cache):
    one, two = (EmbeddingCache(cache, "counting", 512) for _ in range(2))
    vectors = load_encoder("hashing").encode(TEXTS)
    one.add(TEXTS[:30], vectors[:30])
    two.add(TEXTS[10:], vectors[10:])  # it looked before the other one wrote
    is_found, found = EmbeddingCache(cache, "counting", 512).find(TEXTS)
    assert is_found.all()
    np.testing.assert_array_equal(found, vectors)
    with h5py.File(cache) as file:
        assert len(next(iter(file.values()))["keys"]) == len(TEXTS)


def test_a_hundred_thousand_cached_texts_are_found_in_a_second(cache):
    texts = [f"text {n}" for n in range(100_000)]
    vectors = np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)
    EmbeddingCache(cache, "wide", 8).add(texts, vectors)
    began = time.perf_counter()
    is_found, found = EmbeddingCache(cache, "wide", 8).find([*texts[::-1], "new"])
    assert time.perf_counter() - began < 2.0
    assert is_found[:-1].all()
    assert not is_found[-1]
    np.testing.assert_array_equal(found, vectors[::-1])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda vectors: vectors[:-1], r"shape \(49, 512\) for 50 texts"),
        (lambda vectors: _with(vectors, 3, np.nan), "1 of 50 vectors hold values that are not finite.*row 3"),
        (lambda vectors: _with(vectors, 7, np.inf), "not finite.*row 7 for 'item number 7 blue'"),
        (lambda vectors: _with(vectors, 5, 0.0), "1 of 50 vectors are all zero, the first in row 5"),
        (lambda vectors: np.repeat(vectors[:1], len(vectors), axis=0), "50 of 50 different texts have the same"),
    ],
    ids=["count", "nan", "inf", "zero", "all the same"],
)
def test_a_fault_planted_in_the_vectors_is_found_and_named(cache, spoil, words):
    with pytest.raises(EncodingError, match=words):
        encode_texts(CountingEncoder(spoil), TEXTS, cache=cache)
    assert not cache.exists()


def _with(vectors, row, value):
    vectors[row] = value
    return vectors


def test_shuffled_rows_are_found_by_encoding_a_few_again(cache):
    def shuffle_blocks(vectors):
        return np.roll(vectors, 1, axis=0) if len(vectors) > 10 else vectors

    with pytest.raises(EncodingError, match="is not the vector of its text"):
        encode_texts(CountingEncoder(shuffle_blocks), TEXTS)


def test_a_cache_whose_rows_moved_is_found_when_something_new_is_encoded(cache):
    encode_texts(CountingEncoder(), TEXTS, cache=cache)
    with h5py.File(cache, "a") as file:
        vectors = next(iter(file.values()))["vectors"]
        vectors[:] = np.roll(vectors[:], 1, axis=0)
    with pytest.raises(EncodingError, match="the cache is another encoder's"):
        encode_texts(CountingEncoder(), [*TEXTS, "two", "new ones"], cache=cache)


def test_a_vector_for_an_empty_text_means_that_rows_are_shifted():
    with pytest.raises(EncodingError, match="row 1 has a vector but an empty text"):
        check_embeddings(np.ones((2, 3), dtype=np.float32), ["a", ""])


def test_good_embeddings_pass_the_check():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_embeddings(load_encoder("hashing").encode(TEXTS), TEXTS)
        check_embeddings(np.zeros((0, 3), dtype=np.float32), [])


@pytest.mark.parametrize("spread", [1.0, 0.01], ids=["usual", "in a narrow cone"])
def test_alignment_allows_for_rounding_but_not_for_swapped_rows_however_close_vectors_lie(spread):
    random = np.random.default_rng(0)
    exact = (1.0 + spread * random.normal(size=(50, 64))).astype(np.float32)

    class Rounding:
        def encode(self, texts, *, progress=None):
            rows = [TEXTS.index(text) for text in texts]
            return exact[rows] + np.float32(0.1 * spread) * random.normal(size=(len(texts), 64)).astype(np.float32)

    check_alignment(Rounding(), exact, TEXTS)
    with pytest.raises(EncodingError, match="rows are out of order"):
        check_alignment(Rounding(), np.roll(exact, 1, axis=0), TEXTS)
