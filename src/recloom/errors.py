"""Every exception recloom raises on purpose, as one small tree.

A message says what was found, what was wanted and what to do, in one sentence, because it is
shown as it stands: the command line prints it and exits 2 for an `InputError`, 1 for any other
`RecloomError`.
"""


class RecloomError(Exception):
    """Something went wrong that recloom foresaw. The base of the tree."""


class InputError(RecloomError, ValueError):
    """The caller's mistake: it can be mended by calling differently."""


class DataError(InputError):
    """A file or table of interactions, items or users cannot be used."""


class ConfigError(InputError):
    """An option has a value it cannot have, or a name nobody knows."""


class ArtifactError(InputError):
    """A dataset folder, model folder or encoder folder is missing, damaged or of another version."""


class UnknownIdError(InputError):
    """An id that the dataset or catalogue does not hold."""


class MissingExtraError(InputError, ImportError):
    """An optional part is not installed. The message names the extra that brings it."""

    def __init__(self, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs the extra '{extra}'; install it with: pip install 'recloom[{extra}]'")
        self.extra, self.feature = extra, feature

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        """Travel between processes."""
        return MissingExtraError, (self.extra, self.feature)


class EncodingError(RecloomError):
    """An encoder gave vectors that cannot be trusted: misaligned, not finite, or all zero."""


class WritingError(RecloomError):
    """A language model that was to write something was late, out of reach, or answered nonsense."""


class TrainingError(RecloomError):
    """Training could not go on, for instance because the loss is not a number."""
