"""The catalogue's texts and a language model -> a smaller one that reads such texts as it does.

Shapes: T texts of a batch, L tokens, E width of a vector.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.config import to_table
from recloom.dataset import Dataset
from recloom.encoders.encoder import Encoder, Progress
from recloom.encoders.encoding import encode_texts
from recloom.encoders.language_model import LanguageModelEncoder
from recloom.encoders.loading import model_folder
from recloom.encoders.pipeline import Pipeline, weight_files
from recloom.encoders.pooled_model import load_pooled_model, pool, quiet_transformers
from recloom.encoders.text import item_texts, suggest_encoder
from recloom.errors import ConfigError, TrainingError
from recloom.files import replacing

RECORD_NAME = "recloom-distillation.json"
"""Says, inside a student's folder, whose student it is and how well it learned."""
HELD_OUT, MOST_HELD_OUT = 0.1, 500
"""Share, and number at most, of the texts that the student is examined on and never reads before."""
TEXTS_PER_LOOK = 20
"""Batches that are sorted by length together, so that little is padded."""
WARM_UP = 0.1
"""Share of the steps in which the step size rises."""


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How a smaller encoder learns: the [distillation] table of a run file."""

    num_layers: int = 2
    """Layers the student takes of its teacher's, evenly spread; 0 leaves a bag of token embeddings."""
    epochs: int = 3
    """Passes over the catalogue's texts and as many cuttings of them."""
    batch_size: int = 32
    """Texts a step."""
    learning_rate: float = 3e-4
    """Largest step size of AdamW; it rises at first and falls to zero in a line."""
    max_tokens: int = 128
    """Longest text that teacher and student read; the rest is cut off."""
    budget: float | None = None
    """Most seconds of training. Unset: no limit."""
    seed: int = 0
    """Decides what is held out, cut, and in what order texts are read."""

    def __post_init__(self) -> None:
        if self.num_layers < 0:
            raise ConfigError(f"distillation.num_layers is {self.num_layers}; it cannot be negative")
        for name in ("epochs", "batch_size", "learning_rate", "max_tokens"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"distillation.{name} is {getattr(self, name)}; it has to be positive")
        if self.budget is not None and self.budget <= 0:
            raise ConfigError(f"distillation.budget is {self.budget} seconds; it has to be positive")


@dataclass(frozen=True)
class StudentRecord:
    """Whose student an encoder is, and how well it learned: the record inside its folder."""

    dataset: str
    """Fingerprint of the dataset whose texts it read."""
    teacher: str
    """Fingerprint of the encoder it learned from."""
    distillation: dict[str, Any]
    texts: int
    """Different texts it learned from; each was read whole and cut."""
    steps: int
    examined: int
    """Texts it was examined on, which it had not read."""
    cosine: float
    """Between its vectors of those and its teacher's, the mean."""
    cosine_5th_percentile: float
    teacher_bytes: int
    """Of the teacher's weights on disk."""
    bytes: int
    teacher_texts_per_second: float
    """Of processor time, on the texts it was examined on."""
    texts_per_second: float


def distill_encoder(
    dataset: Dataset,
    out: Path,
    *,
    encoder: str = "auto",
    template: str | None = None,
    config: DistillationConfig | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> StudentRecord:
    """Teach a few layers of a BERT to give the vectors that the whole gives, on the catalogue's own texts.

    The student is its teacher without most of the layers: tokenizer, token embeddings and the layers that are left are
    where it begins. It learns the cosine to the teacher's vectors of whole texts and of stretches of words cut out of
    them, and is examined on texts it has not read. What people did is not looked at.

    Args:
        dataset: What the items say.
        out: Folder that takes the student; pass it as the encoder to `recloom fit`.
        encoder: The teacher, of the BERT family; `auto` looks at the script of the text.
        template: Text of an item, with catalogue columns in braces. None: all text columns.
        config: Layers, epochs and the rest.
        cache: File in which the teacher's vectors are looked up and kept.
        progress: Told about each step.

    Raises:
        ConfigError: The teacher is not of the BERT family or has no layers to spare, or there is no text.
        TrainingError: There are too few texts, or the loss is not a number.

    Source: the cosine loss and every so-manieth layer as a beginning, DistilBERT, Sanh et al. (2019),
    https://arxiv.org/abs/1910.01108; vectors of sentences as what is taught, Reimers and Gurevych (2020),
    https://arxiv.org/abs/2004.09813. Departure: no text but the catalogue's is read.
    """
    config = config or DistillationConfig()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and read_student(out) is None):
        raise ConfigError(f"{out} holds something that is not a student, and would be replaced; choose another folder")
    texts = list(dict.fromkeys(text for text in item_texts(dataset.item_table, template) if text.strip()))
    if not texts:
        raise ConfigError("the catalogue has no text columns, so there is nothing to teach a smaller encoder with")
    name = suggest_encoder(texts) if encoder == "auto" else encoder
    if name == "hashing" or name.startswith("openai:"):
        raise ConfigError(f"the encoder {name} has no layers here to make a student of; choose a BERT, such as minilm")
    source = model_folder(name)
    pipeline = Pipeline.read(source)
    student = _beginning(load_pooled_model(source, pipeline).language_model, name, config.num_layers)
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(texts))
    num_examined = min(MOST_HELD_OUT, math.ceil(HELD_OUT * len(texts)))
    examined, lessons = ([texts[row] for row in rows] for rows in np.split(order, [num_examined]))
    if len(lessons) < 2:
        raise TrainingError(f"a student is taught on different texts and examined on others; found {len(texts)}")
    read = [*lessons, *(cut for text in lessons if (cut := _cut(text, rng)) is not None)]
    teacher = LanguageModelEncoder(source, name=name, max_tokens=config.max_tokens)
    half = (lambda done, total: progress(done, 2 * total)) if progress else None
    target_NE = torch.from_numpy(encode_texts(teacher, read, cache=cache, progress=half))
    steps = _train(student, teacher, read, target_NE, config, pipeline, progress)
    with replacing(out) as beside:
        # The teacher's own card would speak of another model.
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "README*"))
        with quiet_transformers():
            student.half().save_pretrained(beside)
        record = _examine(teacher, beside, examined, dataset, config, len(lessons), steps)
        (beside / RECORD_NAME).write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    return record


def read_student(folder: Path) -> dict[str, Any] | None:
    """Return what a student's folder says of it; None for any other folder."""
    record = folder / RECORD_NAME
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def _beginning(teacher: nn.Module, name: str, num_layers: int) -> Any:
    """Return a copy of a BERT with some of its layers, evenly spread from the first to the last."""
    if type(teacher).__name__ != "BertModel":
        raise ConfigError(
            f"a student is made of a BERT's own layers, and the encoder {name} is a {type(teacher).__name__}; choose"
            " minilm, multilingual or a folder of the BERT family"
        )
    student: Any = copy.deepcopy(teacher)
    layers = student.encoder.layer
    if num_layers >= len(layers):
        raise ConfigError(
            f"distillation.num_layers is {num_layers}, and the encoder {name} has {len(layers)} layers; a student has"
            " fewer than its teacher"
        )
    kept = np.linspace(0, len(layers) - 1, num_layers).round().astype(int)
    student.encoder.layer = nn.ModuleList(layers[layer] for layer in kept)
    student.config.num_hidden_layers = num_layers
    student.pooler = None  # nobody reads it
    return student


def _cut(text: str, rng: np.random.Generator) -> str | None:
    """Return a stretch of a text's words, anywhere in it and of any length; None where there is one word."""
    words = text.split()
    if len(words) < 2:
        return None
    length = int(rng.integers(1, len(words)))
    begin = int(rng.integers(0, len(words) - length + 1))
    return " ".join(words[begin : begin + length])


def _train(
    student: Any,
    teacher: LanguageModelEncoder,
    texts: Sequence[str],
    target_NE: Tensor,
    config: DistillationConfig,
    pipeline: Pipeline,
    progress: Progress | None,
) -> int:
    """Train until the budget or the last epoch; return how many steps that took."""
    torch.manual_seed(config.seed)
    tokens = teacher.tokenize(texts)
    rng = np.random.default_rng(config.seed)
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    steps = config.epochs * math.ceil(len(texts) / config.batch_size)
    began, step = time.monotonic(), 0
    student.train()
    for _ in range(config.epochs):
        for rows in _batches(tokens, config.batch_size, rng):
            share_done = max(step / steps, (time.monotonic() - began) / (config.budget or math.inf))
            if share_done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(share_done / WARM_UP + 1 / steps, (1 - share_done))
            read_TL, mask_TL = _padded([tokens[row] for row in rows])
            vectors_TE = pool(student(input_ids=read_TL, attention_mask=mask_TL).last_hidden_state, mask_TL, pipeline)
            loss = (1 - functional.cosine_similarity(vectors_TE, target_NE[rows], dim=1)).mean()
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the loss of a student is {loss.item()} at step {step + 1}; lower distillation.learning_rate"
                    f" ({config.learning_rate})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            if progress:
                progress(steps + step, 2 * steps)
    student.eval()
    return step


def _batches(tokens: Sequence[Sequence[int]], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return all rows once, in batches of similar length, in random order."""
    order, batches = rng.permutation(len(tokens)), []
    for begin in range(0, len(order), size * TEXTS_PER_LOOK):
        some = order[begin : begin + size * TEXTS_PER_LOOK]
        by_length = some[np.argsort([len(tokens[row]) for row in some], kind="stable")]
        batches += np.split(by_length, range(size, len(by_length), size))
    return [batches[place] for place in rng.permutation(len(batches))]


def _padded(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids and which of them are there, each of shape (T, L)."""
    read_TL = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
    mask_TL = torch.zeros_like(read_TL)
    for row, ids in enumerate(tokens):
        read_TL[row, : len(ids)], mask_TL[row, : len(ids)] = torch.tensor(ids), 1
    return read_TL, mask_TL


def _examine(
    teacher: LanguageModelEncoder,
    folder: Path,
    texts: Sequence[str],
    dataset: Dataset,
    config: DistillationConfig,
    num_lessons: int,
    steps: int,
) -> StudentRecord:
    """Compare a student, as it was saved, with its teacher on texts that it has not read."""
    student = LanguageModelEncoder(folder, name="student", max_tokens=config.max_tokens)
    right_NE, teacher_speed = _timed(teacher, texts)
    said_NE, speed = _timed(student, texts)
    lengths = np.linalg.norm(right_NE, axis=1) * np.linalg.norm(said_NE, axis=1)
    cosine_N = (right_NE * said_NE).sum(axis=1) / np.maximum(lengths, 1e-12)
    return StudentRecord(
        dataset=dataset.fingerprint,
        teacher=teacher.fingerprint,
        distillation=to_table(config),
        texts=num_lessons,
        steps=steps,
        examined=len(texts),
        cosine=float(cosine_N.mean()),
        cosine_5th_percentile=float(np.quantile(cosine_N, 0.05)),
        teacher_bytes=sum(path.stat().st_size for path in weight_files(teacher.folder)),
        bytes=sum(path.stat().st_size for path in weight_files(folder)),
        teacher_texts_per_second=teacher_speed,
        texts_per_second=speed,
    )


def _timed(encoder: Encoder, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """Return vectors, and how many texts were read in a second of processor time."""
    encoder.encode(texts[:1])  # loads the model
    began = time.process_time()
    vectors_NE = encoder.encode(texts)
    return vectors_NE, len(texts) / max(time.process_time() - began, 1e-9)
