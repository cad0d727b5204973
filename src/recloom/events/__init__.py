"""Raw logs and catalogues in any format come in; one validated table of interactions, of items or of users goes out."""

from recloom.events.cleaning import CleaningConfig
from recloom.events.columns import IMAGE, VECTOR_PREFIX
from recloom.events.entities import local_picture, read_items, read_users
from recloom.events.interactions import read_interactions
from recloom.events.pseudonyms import Pseudonyms
from recloom.events.reading import read_tables
from recloom.events.samples import SAMPLES, Sample, fetch_sample
from recloom.events.sources import Source
from recloom.events.synthetic import Synthetic, write_synthetic
from recloom.events.tables import Entities, Interactions, ReadReport

__all__ = [
    "IMAGE",
    "SAMPLES",
    "VECTOR_PREFIX",
    "CleaningConfig",
    "Entities",
    "Interactions",
    "Pseudonyms",
    "ReadReport",
    "Sample",
    "Source",
    "Synthetic",
    "fetch_sample",
    "local_picture",
    "read_interactions",
    "read_items",
    "read_tables",
    "read_users",
    "write_synthetic",
]
