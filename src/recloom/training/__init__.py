"""A model, a dataset and a config come in; a fitted model and the record of its run go out."""

from recloom.training.checkpoint import Epoch, refit_checkpoint, remove_checkpoint
from recloom.training.privacy import PrivacyConfig, PrivacyRecord, PrivateRelease
from recloom.training.private_training import train_privately
from recloom.training.run_record import RunRecord, hardware, peak_memory_bytes, versions
from recloom.training.trainer import (
    Progress,
    TrainingConfig,
    TrainingResult,
    UpdateConfig,
    new_and_replayed,
    told_where,
    train,
    usual_batch_size,
)

__all__ = [
    "Epoch",
    "PrivacyConfig",
    "PrivacyRecord",
    "PrivateRelease",
    "Progress",
    "RunRecord",
    "TrainingConfig",
    "TrainingResult",
    "UpdateConfig",
    "hardware",
    "new_and_replayed",
    "peak_memory_bytes",
    "refit_checkpoint",
    "remove_checkpoint",
    "told_where",
    "train",
    "train_privately",
    "usual_batch_size",
    "versions",
]
