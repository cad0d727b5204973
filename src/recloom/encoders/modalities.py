"""What the catalogue gives beside text: pictures and vectors of the user's own -> one vector an item.

Shapes: N items, E width of a vector.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recloom.encoders.cache import EmbeddingCache
from recloom.encoders.encoder import Progress
from recloom.encoders.image_encoder import ImageEncoder
from recloom.encoders.pictures import NOT_ALLOWED, PictureError, check_picture_file, picture_path
from recloom.events import IMAGE, VECTOR_PREFIX

PICTURES_AT_ONCE = 256
"""Pictures between two looks at progress; what was read is kept then, so that a kill costs no more."""
_SEPARATORS = re.compile(r"[\s,;|]+")
Problems = Mapping[str, int]
"""How many cells could not be used, by reason."""


def modality_names(items: pl.DataFrame) -> list[str]:
    """Return the columns of a catalogue that hold pictures or vectors, in alphabetical order.

    >>> modality_names(pl.DataFrame({"item_id": ["1"], "vector:sound": ["1 2"], "image": ["a.jpg"]}))
    ['image', 'vector:sound']
    """
    return sorted(
        name
        for name in items.columns
        if (name == IMAGE or name.startswith(VECTOR_PREFIX)) and any(modality_cells(items, name))
    )


def modality_cells(items: pl.DataFrame, name: str) -> list[str]:
    """Return what a column of pictures or vectors says of each item; "" where it says nothing, or is not there."""
    if name not in items.columns:
        return [""] * len(items)
    return [cell.strip() for cell in items[name].cast(pl.String).fill_null("").to_list()]


def encode_pictures(
    encoder: ImageEncoder, cells: Sequence[str], *, cache: Path | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, Problems]:
    """Turn pictures into vectors, each different file once, looking at those only which the cache does not hold.

    Args:
        encoder: What looks at pictures.
        cells: Of the `image` column: paths, or "".
        cache: An HDF5 file as for `encode_texts`, in which a picture is known by what is in its file.
        progress: Told now and then how many of the different pictures are read.

    Returns:
        float32 vectors of shape (N, E), all zero where there is no picture that can be used, and why not.
    """
    distinct = list(dict.fromkeys(cell for cell in cells if cell))
    found_by = {cell: _digest(cell) for cell in distinct}
    path_by_digest = {found[0]: found[1] for found in found_by.values() if not isinstance(found, str)}
    digests = list(path_by_digest)
    vectors_NE = np.zeros((len(digests) + 1, encoder.embedding_dim), dtype=np.float32)  # the last is for no picture
    kept = EmbeddingCache(cache, encoder.fingerprint, encoder.embedding_dim) if cache else None
    is_found = np.zeros(len(digests), dtype=bool)
    if kept:
        is_found, vectors_NE[:-1][is_found] = kept.find(digests)
    missing, wrong_by_digest = np.flatnonzero(~is_found), dict[str, str]()
    for begin in range(0, len(missing), PICTURES_AT_ONCE):
        rows = missing[begin : begin + PICTURES_AT_ONCE]
        seen = encoder.encode([path_by_digest[digests[row]] for row in rows])
        good = [(row, one) for row, one in zip(rows, seen, strict=True) if not isinstance(one, PictureError)]
        wrong_by_digest |= {
            digests[row]: str(one) for row, one in zip(rows, seen, strict=True) if isinstance(one, PictureError)
        }
        for row, vector_E in good:
            vectors_NE[row] = vector_E
        if kept and good:
            kept.add([digests[row] for row, _ in good], np.stack([vector_E for _, vector_E in good]))
        if progress:
            progress(begin + len(rows), len(missing))
    row_by_digest = {digest: row for row, digest in enumerate(digests)}
    rows_N, problems = np.full(len(cells), len(digests)), Counter[str]()
    for place, cell in enumerate(cells):
        found = found_by.get(cell)
        if isinstance(found, str):
            problems[found] += 1
        elif found is not None:
            rows_N[place] = row_by_digest[found[0]]
            if found[0] in wrong_by_digest:
                problems[wrong_by_digest[found[0]]] += 1
    return vectors_NE[rows_N], problems


def _digest(cell: str) -> tuple[str, Path] | str:
    """Return what the file of a picture is known by, and its path; or what is wrong with it."""
    try:
        path = picture_path(cell)
        check_picture_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path
    except PictureError as error:
        return str(error)
    except OSError:
        return NOT_ALLOWED


def usual_width(cells: Sequence[str]) -> int:
    """Return how many numbers most vectors of a column have; 0 where none can be read."""
    widths = Counter(len(vector) for vector in map(_numbers, cells) if isinstance(vector, np.ndarray))
    return max(widths, key=lambda width: (widths[width], width), default=0)


def parse_vectors(cells: Sequence[str], width: int) -> tuple[np.ndarray, Problems]:
    """Read vectors as a catalogue spells them: a JSON list, or numbers between spaces, commas, semicolons or bars.

    Args:
        cells: Of a `vector:NAME` column; "" for an item without one.
        width: How many numbers a vector has.

    Returns:
        float32 vectors of shape (N, E), all zero where there is none that can be used, and why not.

    >>> parse_vectors(["[0.5, 1]", "2 3", "", "1|x"], 2)[0].tolist()
    [[0.5, 1.0], [2.0, 3.0], [0.0, 0.0], [0.0, 0.0]]
    """
    vectors_NE, problems = np.zeros((len(cells), width), dtype=np.float32), Counter[str]()
    for row, cell in enumerate(cells):
        if not cell:
            continue
        vector = _numbers(cell)
        if isinstance(vector, str):
            problems[vector] += 1
        elif len(vector) != width:
            problems[f"{len(vector)} numbers, not {width}"] += 1
        else:
            vectors_NE[row] = vector
    return vectors_NE, problems


def _numbers(cell: str) -> np.ndarray | str:
    """Read one vector, or say what is wrong with it."""
    try:
        listed: Any = json.loads(cell) if cell.startswith("[") else _SEPARATORS.sub(" ", cell).split()
        with np.errstate(over="ignore"):
            vector_E = np.array(listed, dtype=np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return "not a list of numbers"
    if vector_E.ndim != 1 or len(vector_E) == 0:
        return "not a list of numbers"
    return vector_E if np.isfinite(vector_E).all() else "not finite"


def describe_problems(name: str, problems: Problems) -> str:
    """Say in one sentence what could not be used of a column, and what became of it.

    >>> describe_problems("image", {"damaged": 2, "no such file": 1})
    '3 pictures could not be used, and their items count as without one: 2 damaged, 1 no such file'
    """
    what = "pictures" if name == IMAGE else f"vectors of {name}"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(problems.items(), key=lambda one: -one[1]))
    total = sum(problems.values())
    return f"{total:,} {what} could not be used, and their items count as without one: {reasons}"
