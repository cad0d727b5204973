"""What people take one after the other -> a language model whose vectors know what goes together.

Shapes: B pairs, T distinct texts of a batch, L tokens, E width of a vector.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recloom.config import to_table
from recloom.dataset import Dataset, SplitConfig, neighbouring_pairs, split_dataset
from recloom.encoders.encoder import Progress
from recloom.encoders.loading import model_folder
from recloom.encoders.pipeline import Pipeline
from recloom.encoders.pooled_model import load_pooled_model, pool, quiet_transformers
from recloom.encoders.text import item_texts, suggest_encoder
from recloom.errors import ConfigError, MissingExtraError, TrainingError
from recloom.files import replacing

RECORD_NAME = "recloom-adaptation.json"
"""Says, inside an adapted model's folder, what it was adapted on."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """How a language model is adapted: the [adaptation] table of a run file."""

    rank: int = 16
    """Rank of the matrices that are learned beside the frozen ones."""
    steps: int = 300
    """Gradient steps."""
    batch_size: int = 96
    """Pairs a step; every item of a batch is a negative of all the others."""
    learning_rate: float = 5e-4
    """Step size of AdamW, falling to zero in a line."""
    temperature: float = 0.05
    """What cosines are divided by."""
    reach: int = 3
    """A pair is two interactions of a user at most so many apart."""
    max_tokens: int = 48
    """Longest text that is read while adapting; the rest is cut off."""
    budget: float | None = None
    """Most seconds. Unset: no limit."""
    seed: int = 0
    """Decides pairs and initial matrices."""

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch_size", "learning_rate", "temperature", "reach", "max_tokens"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"adaptation.{name} is {getattr(self, name)}; it has to be positive")
        if self.budget is not None and self.budget <= 0:
            raise ConfigError(f"adaptation.budget is {self.budget} seconds; it has to be positive")


def adapt_encoder(
    dataset: Dataset,
    out: Path,
    *,
    encoder: str = "auto",
    template: str | None = None,
    split: SplitConfig | None = None,
    config: AdaptationConfig | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Fine-tune a language model with low-rank matrices, so that texts taken together get similar vectors.

    Only the training part of the split is looked at, so that a model fitted under the same split can be tested.

    Args:
        dataset: What people did and what the items say.
        out: Folder that takes the whole adapted model; pass it as the encoder to `recloom fit`.
        encoder: The language model to start from; `auto` looks at the script of the text.
        template: Text of an item, with catalogue columns in braces. None: all text columns.
        split: The split of the fits that will use it. None: the default one.
        config: Steps, rank and the rest.
        progress: Told about each step.

    Returns:
        The loss of each step.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: The encoder is no language model in a folder.
        TrainingError: There are no pairs to learn from.

    Source: LoRA, Hu et al. (2021), https://arxiv.org/abs/2106.09685; the contrastive loss over a batch, van den Oord et
    al. (2018), https://arxiv.org/abs/1807.03748.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("adapt", "adapting a language model") from None
    from transformers import AutoTokenizer

    config, split = config or AdaptationConfig(), split or SplitConfig()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and read_adaptation(out) is None):
        raise ConfigError(f"{out} holds something that is not an adapted model, and would be replaced; choose another")
    texts = ["", *item_texts(dataset.item_table, template)]
    if not any(texts):
        raise ConfigError("the catalogue has no text columns, so there is nothing to adapt a language model to")
    name = suggest_encoder(texts[1:]) if encoder == "auto" else encoder
    if name == "hashing" or name.startswith("openai:"):
        raise ConfigError(f"the encoder {name} has no weights here to adapt; choose minilm, multilingual or a folder")
    source = model_folder(name)
    pairs_P2 = np.concatenate([*neighbouring_pairs(dataset, split_dataset(dataset, split).train, config.reach)])
    has_text_I = np.array([bool(text) for text in texts])
    pairs_P2 = pairs_P2[has_text_I[pairs_P2].all(axis=1)]
    if len(pairs_P2) < 2:
        raise TrainingError(
            "adapting learns from different items with text that one user took near each other;"
            f" found {len(pairs_P2)} such pairs"
        )
    torch.manual_seed(config.seed)
    pipeline = Pipeline.read(source)
    pooled = load_pooled_model(source, pipeline)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    lora = LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules="all-linear", bias="none")
    adapted = get_peft_model(pooled.language_model, lora)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)

    def read(rows: np.ndarray) -> Tensor:
        batch = tokenizer(
            [pipeline.prompt + texts[row] for row in rows],
            truncation=True, max_length=config.max_tokens, padding=True, return_tensors="pt",
        )  # fmt: skip
        hidden_TLE = adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return pool(hidden_TLE, batch["attention_mask"], pipeline)

    losses = _train(read, optimizer, parameters, pairs_P2, config, progress)
    with replacing(out) as beside:
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx"))
        with quiet_transformers():
            adapted.merge_and_unload().save_pretrained(beside)  # type: ignore[operator]
        record = {
            "dataset": dataset.fingerprint,
            "split": to_table(split),
            "encoder": name,
            "adaptation": to_table(config),
            "steps_taken": len(losses),
        }
        (beside / RECORD_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return losses


def read_adaptation(folder: Path) -> dict[str, Any] | None:
    """Return what an adapted model's folder says it was adapted on; None for any other folder."""
    record = folder / RECORD_NAME
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def _train(
    read: Callable[[np.ndarray], Tensor],
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    pairs_P2: np.ndarray,
    config: AdaptationConfig,
    progress: Progress | None,
) -> list[float]:
    rng = np.random.default_rng(config.seed)
    began, losses = time.monotonic(), list[float]()
    for step in range(config.steps):
        pairs_B2 = pairs_P2[rng.choice(len(pairs_P2), min(config.batch_size, len(pairs_P2)), replace=False)]
        rows_T, position = np.unique(pairs_B2, return_inverse=True)
        vectors_TE = functional.normalize(read(rows_T), dim=1)
        loss = _contrast(vectors_TE, torch.from_numpy(position.reshape(-1, 2)), config.temperature)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the loss of adapting is {loss.item()} at step {step + 1}; lower adaptation.learning_rate"
                f" ({config.learning_rate})"
            )
        share_done = max(step / config.steps, (time.monotonic() - began) / (config.budget or math.inf))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * max(0.0, 1 - share_done)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if progress:
            progress(step + 1, config.steps)
        if config.budget is not None and time.monotonic() - began >= config.budget:
            break
    return losses


def _contrast(vectors_TE: Tensor, position_B2: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of picking each item's partner among all texts of the batch, both ways."""
    score_TT = vectors_TE @ vectors_TE.T / temperature
    score_TT.fill_diagonal_(-math.inf)
    left_B, right_B = position_B2.T
    # Other partners of the same item in the batch are right as well: they are no negatives of this pair.
    is_partner_TT = torch.zeros_like(score_TT, dtype=torch.bool)
    is_partner_TT[left_B, right_B] = is_partner_TT[right_B, left_B] = True
    losses = []
    for asked_B, answer_B in ((left_B, right_B), (right_B, left_B)):
        others_BT = is_partner_TT[asked_B].clone()
        others_BT[torch.arange(len(answer_B)), answer_B] = False
        losses.append(functional.cross_entropy(score_TT[asked_B].masked_fill(others_BT, -math.inf), answer_B))
    return torch.stack(losses).mean()
