"""What a model folder says of itself: how a text becomes a vector, and which files decide it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recloom.errors import ArtifactError

Pooling = Literal["mean", "cls", "last"]

_NO_LIMIT = 1_000_000
_POOLING_NAMES: dict[str, Pooling] = {
    # The names sentence-transformers uses now, and the flags it used before.
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "cls": "cls",
    "pooling_mode_cls_token": "cls",
    "lasttoken": "last",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class Pipeline:
    """How a text becomes a vector."""

    pooling: Pooling
    """Which hidden states become the vector: the mean over tokens, the first, or the last."""
    normalize: bool
    """Whether vectors are scaled to length 1."""
    prompt: str
    """Put before a text unless the caller says otherwise."""
    max_tokens: int
    """Most tokens the model can read."""
    embedding_dim: int
    """Width E of the vectors."""

    @classmethod
    def read(cls, folder: Path) -> "Pipeline":
        """Read a folder's own configuration.

        Pooling, normalisation and prompt are as sentence-transformers saved them; where it did not, a causal
        language model gives the hidden state of the last token, and every other model the mean over tokens.

        Raises:
            ArtifactError: The folder holds no model, or one that needs more than pooling and normalisation.
        """
        config = _read_json(folder / "config.json")
        if config is None:
            raise ArtifactError(
                f"the encoder folder {folder} has no config.json; pass the folder that save_pretrained wrote"
            )
        pooling, normalize = _pooling_and_normalize(folder, config)
        prompts = _read_json(folder / "config_sentence_transformers.json") or {}
        longest = (_read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
        return cls(
            pooling=pooling,
            normalize=normalize,
            prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
            max_tokens=min(longest or _NO_LIMIT, _positions(config)),
            embedding_dim=_width(config, folder),
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights, in the form transformers prefers.

    Raises:
        ArtifactError: There are none.
    """
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise ArtifactError(
        f"the encoder folder {folder} has no weights; wanted model.safetensors or pytorch_model.bin,"
        " which the model's save_pretrained writes"
    )


def digest_of_model(folder: Path) -> str:
    """Digest config, tokenizer and weights: folders with the same digest give the same vectors.

    Raises:
        ArtifactError: Weights or tokenizer are missing.
    """
    tokenizer = sorted(
        path for pattern in ("tokenizer*", "vocab.*", "merges.txt", "*.model") for path in folder.glob(pattern)
    )
    if all(path.name == "tokenizer_config.json" for path in tokenizer):
        raise ArtifactError(
            f"the encoder folder {folder} has no tokenizer; wanted tokenizer.json or a vocabulary,"
            " which the tokenizer's save_pretrained writes"
        )
    files = [folder / "config.json", *tokenizer, *weight_files(folder)]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:32]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pooling_and_normalize(folder: Path, config: dict[str, Any]) -> tuple[Pooling, bool]:
    architectures = " ".join(config.get("architectures") or [])
    is_causal = "ForCausalLM" in architectures or "LMHeadModel" in architectures
    pooling: Pooling = "last" if is_causal else "mean"
    normalize = False
    for module in _read_json(folder / "modules.json") or []:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _read_pooling(folder / module["path"] / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise ArtifactError(
                f"the encoder folder {folder} has a {kind} layer after the language model, but only pooling and"
                " normalisation are known; choose a model without it"
            )
    return pooling, normalize


def _read_pooling(path: Path) -> Pooling:
    saved = _read_json(path) or {}
    modes = saved.get("pooling_mode") or [key for key, on in saved.items() if key.startswith("pooling_mode") and on]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in _POOLING_NAMES:
        raise ArtifactError(
            f"{path} asks for the pooling {' and '.join(modes) or 'of no kind'}, but only mean, cls and lasttoken are"
            " known; choose a model with one of them"
        )
    return _POOLING_NAMES[modes[0]]


def _positions(config: dict[str, Any]) -> int:
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or _NO_LIMIT)
    # The RoBERTa family counts positions from pad_token_id + 1, so the first ones are never used.
    is_roberta = "roberta" in config.get("model_type", "")
    return positions - int(config.get("pad_token_id") or 0) - 1 if is_roberta else positions


def _width(config: dict[str, Any], folder: Path) -> int:
    # GPT-2, DistilBERT and T5 have names of their own for it.
    for name in ("hidden_size", "n_embd", "dim", "d_model"):
        if name in config:
            return int(config[name])
    raise ArtifactError(
        f"{folder / 'config.json'} gives no hidden_size, which text models of the BERT and GPT families have;"
        " choose such a model"
    )


def _read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); copy the encoder folder again") from None
