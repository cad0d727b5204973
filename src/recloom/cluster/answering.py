"""Questions to a model -> its lists, made by the machines of a cluster; the same lists as one machine makes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from recloom.bulk import Asked, Part, Written, answer_part
from recloom.cluster.tasks import Progress, spread
from recloom.dataset import Cases
from recloom.models import Rankings
from recloom.recommender import USERS_AT_ONCE, Recommender


def answer_on_cluster(
    parts: Sequence[Part], asked: Asked, out: Path, *, workers: int | None = None, progress: Progress | None = None
) -> Iterator[Written]:
    """Write the lists of parts, each somewhere in the cluster, as `write_lists` wants it.

    Args:
        parts: Which.
        asked: What is asked; model and files are on disks that all machines share.
        out: The folder of the lists, likewise.
        workers: How many load the model. None: as many as there are CPUs for.
        progress: Told how many parts are done.
    """
    for _, written in spread(parts, _answer, (asked, out), loaded=_load, workers=workers, progress=progress):
        yield written


def _load(asked: Asked, out: Path) -> Recommender:
    return asked.load()


def _answer(part: Part, recommender: Recommender, asked: Asked, out: Path) -> Written:
    return answer_part(part, recommender, asked, out)


def rank_on_cluster(model: Path) -> Callable[[Cases, int, bool | None], Rankings]:
    """Return what ranks cases as the model in a folder does, to give to `Recommender.evaluate`.

    Lists come back and metrics are made of them all; nothing is averaged over workers.
    """
    folder = str(model.absolute())

    def rank(cases: Cases, k: int, include_seen: bool | None) -> Rankings:
        jobs = [
            cases.rows(rows)
            for rows in np.split(np.arange(len(cases)), range(USERS_AT_ONCE, len(cases), USERS_AT_ONCE))
        ]
        parts = dict(spread(jobs, _rank, (folder, k, include_seen), loaded=_load_folder))
        return Rankings.concatenate([parts[place] for place in range(len(jobs))])

    return rank


def _load_folder(folder: str, k: int, include_seen: bool | None) -> Recommender:
    return Recommender.load(folder)


def _rank(cases: Cases, recommender: Recommender, folder: str, k: int, include_seen: bool | None) -> Rankings:
    return recommender.rank_cases(cases, k, include_seen)
