"""Sentences and their reasons -> the same said by a language model, if it says nothing else and is there in time."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from recloom.errors import RecloomError, WritingError
from recloom.explanation.checking import Titles, problem_with
from recloom.explanation.reasons import Reason
from recloom.explanation.sentences import Language, quotable
from recloom.explanation.writers import Writer

MOST_TOKENS = 120
MOST_AT_ONCE = 4
"""Answers of a writer that may be waited for together; who comes later gets the template at once."""
_INSTRUCTIONS: dict[Language, str] = {
    "en": "Rewrite the sentence in a friendly tone. Keep every title between “ and ” exactly as it is. Add no other"
    " title, name, number or quality. Answer with the sentence alone.",
    "zh": "把这句话改写得亲切一些。《》里的名称必须原样保留，不要添加任何别的名称、数字或评价。只回答改写后的句子。",
}


@dataclass(frozen=True)
class Phrased:
    """What is to be shown of one item's reasons."""

    text: str
    problem: str
    """Why it is the template's sentence; "" where the language model wrote it."""


class Phraser:
    """Has a writer phrase reasons, and lets nothing through that the reasons do not say."""

    def __init__(self, writer: Writer, titles: Iterable[str], seconds: float) -> None:
        """Begin.

        Args:
            writer: The language model.
            titles: Of the whole catalogue, so that others than those of the facts are recognised.
            seconds: The most that all sentences of one call may take together.
        """
        self.writer, self._seconds = writer, seconds
        self._others = Titles(titles)
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)

    def phrase(self, told: Sequence[tuple[str, Sequence[Reason]]], language: Language) -> list[Phrased]:
        """Return something to show of each sentence and its reasons, after `seconds` at the latest; never raises."""
        end = time.monotonic() + self._seconds
        phrased = []
        for sentence, reasons in told:
            try:
                text = self._written(sentence, language, end - time.monotonic())
                titles = {quotable(reason.title or "") for reason in reasons if reason.kind == "history"}
                named = [title for title in titles if title and title in sentence]
                problem = problem_with(text, sentence, named, self._others, language)
                problem = f"the text of {self.writer.name} was rejected: {problem}" if problem else ""
            except RecloomError as error:
                text, problem = "", str(error)
            phrased.append(Phrased(sentence if problem else text, problem))
        return phrased

    def _written(self, sentence: str, language: Language, seconds: float) -> str:
        if seconds <= 0:
            raise WritingError(f"the {self._seconds:g} s for {self.writer.name} were over")
        if not self._free.acquire(blocking=False):
            raise WritingError(f"{self.writer.name} is busy with {MOST_AT_ONCE} others")
        answers: SimpleQueue[str | Exception] = SimpleQueue()

        def write() -> None:
            try:
                answers.put(
                    self.writer.write(_INSTRUCTIONS[language], sentence, most_tokens=MOST_TOKENS, seconds=seconds)
                )
            except Exception as error:
                answers.put(error)
            finally:
                self._free.release()

        # On a thread of its own: a service that sends a byte now and then is never late by its own clock.
        threading.Thread(target=write, name="recloom-writer", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except Empty:
            raise WritingError(f"{self.writer.name} was not done within {self._seconds:g} s") from None
        if isinstance(answer, RecloomError):
            raise answer
        if isinstance(answer, Exception):
            raise WritingError(f"{self.writer.name} failed ({answer})")
        return answer
