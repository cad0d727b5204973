"""A pretrained language model in a folder: BERT- and GPT-family models, as transformers saves them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from recloom.encoders.encoder import Progress
from recloom.errors import ArtifactError

Pooling = Literal["mean", "cls", "last"]

TOKENS_PER_BATCH = 1024
"""Tokens read at once: their activations stay in the processor's cache."""
TOKENS_WITHOUT_LIMIT = 100_000
"""Tokenizers that know no longest text give a huge number; this many tokens are one."""

_POOLING_NAMES: dict[str, Pooling] = {
    "mean": "mean",
    "pooling_mode_mean_tokens": "mean",
    "cls": "cls",
    "pooling_mode_cls_token": "cls",
    "lasttoken": "last",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class Pipeline:
    """What a model folder says of how a text becomes a vector."""

    pooling: Pooling
    normalize: bool
    prompt: str
    max_tokens: int
    embedding_dim: int

    @classmethod
    def read(cls, folder: Path) -> "Pipeline":
        """Read a folder's own configuration.

        Pooling and normalisation are as sentence-transformers saved them (`modules.json`); else a causal
        language model gives the hidden state of the last token, and every other model the mean over tokens.

        Raises:
            ArtifactError: The folder holds no model, or one that needs more than pooling and normalisation.
        """
        config = _read_json(folder / "config.json")
        if config is None:
            raise ArtifactError(
                f"the encoder folder {folder} has no config.json; pass the folder that save_pretrained wrote"
            )
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
                    f"the encoder folder {folder} has a {kind} layer after the language model; recloom reads models"
                    " that end in pooling and normalisation, so choose one without it"
                )
        prompts = _read_json(folder / "config_sentence_transformers.json") or {}
        longest = (_read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
        return cls(
            pooling=pooling,
            normalize=normalize,
            prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
            max_tokens=min(
                longest or TOKENS_WITHOUT_LIMIT, config.get("max_position_embeddings", TOKENS_WITHOUT_LIMIT)
            ),
            embedding_dim=_width(config, folder),
        )


class LanguageModelEncoder:
    """Read texts with a pretrained language model and pool its last hidden states.

    Texts are read in batches of one length, in tokens, so that nothing is padded or masked: no work is
    wasted, and a vector does not depend on which texts were read beside it. The model is loaded when the
    first text is read: what is cached needs neither torch nor transformers.

    Args:
        folder: What `save_pretrained` wrote: config.json, weights, tokenizer.
        name: How the user calls it.
        prompt: Put before every text; None takes the model's own.
        max_tokens: Longest text read, in tokens; the rest is cut off.
        device: Where torch runs the model.

    Raises:
        ArtifactError: The folder lacks a config, weights or tokenizer.
    """

    def __init__(
        self, folder: Path, *, name: str, prompt: str | None = None, max_tokens: int = 128, device: str = "cpu"
    ) -> None:
        self.folder = folder
        self.device = device
        self.pipeline = Pipeline.read(folder)
        self.prompt = self.pipeline.prompt if prompt is None else prompt
        self.max_tokens = min(max_tokens, self.pipeline.max_tokens)
        self.embedding_dim = self.pipeline.embedding_dim
        self.fingerprint = (
            f"{name} weights={digest_of_model(folder)} pooling={self.pipeline.pooling}"
            f" normalize={self.pipeline.normalize} prompt={self.prompt!r} max_tokens={self.max_tokens} precision=fp32"
        )

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 vectors of shape (N, E), normalised where the model's own pipeline says so."""
        tokens = self.tokenize(texts)
        vectors_NE = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
        done = 0
        for rows in batches_of_one_length(tokens):
            vectors_NE[rows] = self._read(np.array([tokens[row] for row in rows]))
            done += len(rows)
            if progress:
                progress(done, len(texts))
        return vectors_NE

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at most `max_tokens` and at least one."""
        if not texts:
            return []
        encoded = self._tokenizer(
            [self.prompt + text for text in texts],
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        # A tokenizer without special tokens may find nothing in a text of odd characters.
        nothing = [next(iter(self._tokenizer.all_special_ids), 0)]
        return [ids or nothing for ids in cast("list[list[int]]", encoded["input_ids"])]

    def _read(self, token_BL: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            hidden_BLE = self._model(input_ids=torch.from_numpy(token_BL).to(self.device)).last_hidden_state
            if self.pipeline.pooling == "mean":
                vectors_BE = hidden_BLE.mean(dim=1)
            else:
                vectors_BE = hidden_BLE[:, 0 if self.pipeline.pooling == "cls" else -1]
            if self.pipeline.normalize:
                vectors_BE = torch.nn.functional.normalize(vectors_BE, dim=1)
            return cast("np.ndarray", vectors_BE.float().cpu().numpy())

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            with quiet_transformers():
                return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"the tokenizer in the encoder folder {self.folder} cannot be read: {error}") from error

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel

        try:
            with quiet_transformers():
                model, report = AutoModel.from_pretrained(
                    self.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ArtifactError(f"the model in the encoder folder {self.folder} cannot be loaded: {error}") from error
        # The pooler is not used, and many models come without it; anything else missing would be random numbers.
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        if missing:
            raise ArtifactError(
                f"the weights in the encoder folder {self.folder} lack {len(missing)} tensors of the model, such as"
                f" {missing[0]}; save the whole model there"
            )
        return model.eval().to(self.device)


def batches_of_one_length(
    tokens: Sequence[Sequence[int]], tokens_per_batch: int = TOKENS_PER_BATCH
) -> Iterator[list[int]]:
    """Yield rows whose texts have equally many tokens, long texts first, so that memory is at its most at the start."""
    rows_of_length: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        rows_of_length.setdefault(len(ids), []).append(row)
    for length in sorted(rows_of_length, reverse=True):
        rows = rows_of_length[length]
        size = max(1, tokens_per_batch // length)
        for begin in range(0, len(rows), size):
            yield rows[begin : begin + size]


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
        " which save_pretrained writes"
    )


def digest_of_model(folder: Path) -> str:
    """Digest weights and tokenizer: two folders with the same digest give the same vectors.

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
    return hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()[:32]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing progress bars and reporting on weights, for as long as this lasts."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def _read_pooling(path: Path) -> Pooling:
    """Read the pooling that sentence-transformers saved, in its old form (one flag each) or its new one."""
    saved = _read_json(path) or {}
    modes = saved.get("pooling_mode") or [key for key, on in saved.items() if key.startswith("pooling_mode") and on]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in _POOLING_NAMES:
        raise ArtifactError(f"{path} asks for the pooling {' + '.join(modes)}; recloom knows mean, cls and lasttoken")
    return _POOLING_NAMES[modes[0]]


def _width(config: dict[str, Any], folder: Path) -> int:
    # GPT-2, DistilBERT and T5 have names of their own for it.
    for name in ("hidden_size", "n_embd", "dim", "d_model"):
        if name in config:
            return int(config[name])
    raise ArtifactError(
        f"{folder / 'config.json'} gives no hidden_size; recloom reads text models of the BERT and GPT families"
    )


def _read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); copy the encoder folder again") from None
