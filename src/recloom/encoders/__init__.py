"""Words about items, behaviour and context come in; embeddings of a pretrained language model go out."""

from recloom.encoders.adaptation import AdaptationConfig, adapt_encoder, read_adaptation
from recloom.encoders.checks import check_embeddings
from recloom.encoders.distillation import DistillationConfig, distill_encoder
from recloom.encoders.encoder import Encoder
from recloom.encoders.encoding import Blocks, encode_texts
from recloom.encoders.loading import ENCODER_NAMES, load_encoder
from recloom.encoders.text import behavior_text, context_text, item_texts, item_titles, suggest_encoder

__all__ = [
    "ENCODER_NAMES",
    "AdaptationConfig",
    "Blocks",
    "DistillationConfig",
    "Encoder",
    "adapt_encoder",
    "behavior_text",
    "check_embeddings",
    "context_text",
    "distill_encoder",
    "encode_texts",
    "item_texts",
    "item_titles",
    "load_encoder",
    "read_adaptation",
    "suggest_encoder",
]
