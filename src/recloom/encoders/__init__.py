"""Words about items, behaviour and context, and pictures, come in; embeddings of pretrained models go out."""

from recloom.encoders.adaptation import AdaptationConfig, adapt_encoder, read_adaptation
from recloom.encoders.checks import check_embeddings
from recloom.encoders.distillation import DistillationConfig, distill_encoder
from recloom.encoders.encoder import Encoder
from recloom.encoders.encoding import Blocks, encode_texts
from recloom.encoders.image_encoder import IMAGE_ENCODER_NAMES, ImageEncoder, load_image_encoder
from recloom.encoders.loading import ENCODER_NAMES, load_encoder
from recloom.encoders.modalities import (
    Problems,
    describe_problems,
    encode_pictures,
    modality_cells,
    modality_names,
    parse_vectors,
    usual_width,
)
from recloom.encoders.text import behavior_text, context_text, item_texts, item_titles, suggest_encoder

__all__ = [
    "ENCODER_NAMES",
    "IMAGE_ENCODER_NAMES",
    "AdaptationConfig",
    "Blocks",
    "DistillationConfig",
    "Encoder",
    "ImageEncoder",
    "Problems",
    "adapt_encoder",
    "behavior_text",
    "check_embeddings",
    "context_text",
    "describe_problems",
    "distill_encoder",
    "encode_pictures",
    "encode_texts",
    "item_texts",
    "item_titles",
    "load_encoder",
    "load_image_encoder",
    "modality_cells",
    "modality_names",
    "parse_vectors",
    "read_adaptation",
    "suggest_encoder",
    "usual_width",
]
