"""Recommend what reads like the things somebody had: no behaviour but their own is looked at."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.interface import CountedModel, ItemText, TrainingData


@dataclass(frozen=True, kw_only=True)
class ContentConfig:
    """Hyperparameters of `content`: the [model] table of a run file."""

    max_length: int = 20
    """Interactions of the history to compare with, the newest ones."""
    half_life: float = 5.0
    """After so many later interactions an earlier one counts half."""

    def __post_init__(self) -> None:
        if self.max_length < 1 or self.half_life <= 0:
            raise ConfigError(
                f"model.max_length ({self.max_length}) has to be at least 1 and model.half_life"
                f" ({self.half_life}) positive"
            )


class Content(CountedModel):
    """The score is the cosine between an item's text embedding and the history's mean one, newer items weighing more.

    Embeddings are centred first: language models put all texts in a narrow cone, where everything is
    similar to everything.
    """

    name = "content"
    Config = ContentConfig
    needs_text = True
    text_IE: Tensor
    mean_E: Tensor

    def __init__(self, config: ContentConfig, dataset: Dataset, text: ItemText) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.register_buffer("text_IE", torch.from_numpy(text.vectors_IE), persistent=False)
        self.register_buffer("mean_E", torch.zeros(text.vectors_IE.shape[1]))

    def count(self, data: TrainingData) -> None:
        self.mean_E = self.text_IE[torch.from_numpy(data.item_counts() > 0)].mean(dim=0)

    def item_vectors(self) -> Tensor:
        has_text_I1 = self.text_IE.abs().amax(dim=1, keepdim=True) > 0
        return torch.nn.functional.normalize((self.text_IE - self.mean_E) * has_text_I1, dim=1)

    def queries(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        steps_back_BL = torch.from_numpy(histories.length_B)[:, None] - 1 - torch.arange(item_index_BL.shape[1])
        weight_BL = torch.where(steps_back_BL >= 0, 0.5 ** (steps_back_BL / self.config.half_life), 0.0)
        vectors_BLE = self.item_vectors()[item_index_BL]
        return torch.nn.functional.normalize((vectors_BLE * weight_BL[..., None].to(vectors_BLE)).sum(dim=1), dim=1)
