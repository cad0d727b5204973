"""Item vectors and rules come in; the items that may be shown, best first, go out."""

from recloom.retrieval.approximate import ApproximateIndex
from recloom.retrieval.arrangement import arrange
from recloom.retrieval.catalogue import Availability, Catalogue
from recloom.retrieval.rules import Boost, Rules
from recloom.retrieval.search import Hits, Search

__all__ = ["ApproximateIndex", "Availability", "Boost", "Catalogue", "Hits", "Rules", "Search", "arrange"]
