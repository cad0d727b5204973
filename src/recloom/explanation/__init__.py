"""A model, a history and ranked items come in; reasons that are true of the model, and sentences, go out."""

from recloom.explanation.explainer import Explainer, Facts, Removed
from recloom.explanation.phrasing import Phrased, Phraser
from recloom.explanation.reasoner import Reasoner, with_reasons
from recloom.explanation.reasons import Explanation, Kind, Names, Reason
from recloom.explanation.removal import variants
from recloom.explanation.reranking import reranked
from recloom.explanation.sentences import LANGUAGES, Language, checked_language, sentence_of
from recloom.explanation.words import word_reasons
from recloom.explanation.writers import Writer, load_writer

__all__ = [
    "LANGUAGES",
    "Explainer",
    "Explanation",
    "Facts",
    "Kind",
    "Language",
    "Names",
    "Phrased",
    "Phraser",
    "Reason",
    "Reasoner",
    "Removed",
    "Writer",
    "checked_language",
    "load_writer",
    "reranked",
    "sentence_of",
    "variants",
    "with_reasons",
    "word_reasons",
]
