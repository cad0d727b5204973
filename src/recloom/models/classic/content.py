"""Recommend what reads like the things somebody had: no behaviour but their own is looked at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.encoders import item_texts
from recloom.errors import ConfigError
from recloom.models.classic.sparse import history_weights
from recloom.models.interface import CountedModel, ItemText, Scorer, Span, TrainingData, VectorModel


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


class Content(CountedModel, VectorModel):
    """The score is the cosine between an item's text embedding and the history's mean one, newer items weighing more.

    Embeddings are centred first: language models put all texts in a narrow cone, where everything is
    similar to everything. Where there are pictures or other vectors, each is centred and scaled likewise, and the score
    is the cosine of what there is of an item, side by side.
    """

    name = "content"
    Config = ContentConfig
    search_space = {"model.max_length": Span(1, 50, log=True), "model.half_life": Span(0.5, 50.0, log=True)}
    needs_text = True
    uses_modalities = True
    text_IE: Tensor
    mean_E: Tensor

    def __init__(self, config: ContentConfig, dataset: Dataset, text: ItemText) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self._widths = [vectors_IE.shape[1] for vectors_IE in text.all_vectors]
        all_IE = np.concatenate(text.all_vectors, axis=1) if text.others else text.vectors_IE
        self.register_buffer("text_IE", torch.from_numpy(all_IE), persistent=False)
        self.register_buffer("mean_E", torch.zeros(all_IE.shape[1]))

    def count(self, data: TrainingData) -> None:
        seen_NE = self.text_IE[torch.from_numpy(data.item_counts() > 0)]
        self.mean_E = seen_NE.mean(dim=0)
        if len(self._widths) > 1:
            # An item without a picture says nothing about where pictures are.
            parts = torch.split(seen_NE, self._widths, dim=1)
            present = [(part_NE.abs().amax(dim=1) > 0).sum() for part_NE in parts]
            sums = zip(parts, present, strict=True)
            self.mean_E = torch.cat([part_NE.sum(dim=0) / count.clamp_min(1) for part_NE, count in sums])

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        self.text_IE[rows_N, : embedding_NE.shape[1]] = embedding_NE.to(self.text_IE)

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        all_NE = self.text_IE if rows_N is None else self.text_IE[rows_N]
        parts = []
        means = torch.split(self.mean_E, self._widths)
        for text_NE, mean_E in zip(torch.split(all_NE, self._widths, dim=1), means, strict=True):
            has_text_N1 = text_NE.abs().amax(dim=1, keepdim=True) > 0
            parts.append(torch.nn.functional.normalize((text_NE - mean_E) * has_text_N1, dim=1))
        return parts[0] if len(parts) == 1 else torch.nn.functional.normalize(torch.cat(parts, dim=1), dim=1)

    def score_parts(self, query_D: Tensor, rows_N: Tensor) -> dict[str, Tensor]:
        return {"text": self.item_vectors(rows_N) @ query_D}

    def queries(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        steps_back_BL = torch.from_numpy(histories.length_B)[:, None] - 1 - torch.arange(item_index_BL.shape[1])
        weight_BL = torch.where(steps_back_BL >= 0, 0.5 ** (steps_back_BL / self.config.half_life), 0.0)
        rows, position_BL = torch.unique(item_index_BL, return_inverse=True)
        vectors_BLE = self.item_vectors(rows)[position_BL]
        return torch.nn.functional.normalize((vectors_BLE * weight_BL[..., None].to(vectors_BLE)).sum(dim=1), dim=1)


@dataclass(frozen=True, kw_only=True)
class ContentTfidfConfig(ContentConfig):
    """Hyperparameters of `content-tfidf`: the [model] table of a run file."""


class ContentTfidf(CountedModel):
    """The same with words instead of a language model: TF-IDF over words and pairs of words of the item text.

    Source: Salton and Buckley (1988), https://doi.org/10.1016/0306-4573(88)90021-0.
    """

    name = "content-tfidf"
    Config = ContentTfidfConfig
    search_space = Content.search_space
    uses_text = False  # of a language model

    def __init__(self, config: ContentTfidfConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self._texts = ["", *item_texts(dataset.item_table)]
        if not any(self._texts):
            raise ConfigError("content-tfidf reads item text, but the catalogue has no text columns")

    def count(self, data: TrainingData) -> None:
        """There is nothing to learn from behaviour."""

    @cached_property
    def _words(self) -> sparse.csr_array:
        """What each item says, rows of length 1; shape (I, words)."""
        # Letters of scripts without spaces come in pairs as words do.
        pattern = r"(?u)[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+"
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes half a second to import

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=pattern, sublinear_tf=True, dtype=np.float64)
        return sparse.csr_array(vectorizer.fit_transform(self._texts))

    def scorer(self) -> Scorer:
        words = self._words
        said_by = sparse.csr_array(words.T)

        def score(histories: Histories) -> Tensor:
            weights = history_weights(histories, self.config.half_life, self.num_items)
            return torch.from_numpy((weights @ words @ said_by).toarray())

        return score

    def similarity(self, item_index: int) -> Tensor:
        return torch.from_numpy((self._words[[item_index]] @ self._words.T).toarray()[0])
