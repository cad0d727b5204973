"""A log in many files -> one dataset, on the machines of a cluster; nowhere does all of it have to fit into memory.

Each file is read, validated and sorted by user on its own; then each part of the users is brought together, cleaned and
made a dataset; then these are put together. Between the steps lie files in a folder that all machines share, beside the
dataset: what is there already is not done again. The functions that read, validate, clean and number are those of one
machine, and so is what comes out.
"""

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recloom.cluster.files import FileThere, find_everywhere
from recloom.cluster.log_parts import (
    Cleaned,
    Plan,
    Sorted,
    Survey,
    clean_part,
    core_round,
    finish_part,
    sort_file,
    survey,
)
from recloom.cluster.tasks import Progress, spread
from recloom.dataset import Dataset, assemble, write_report
from recloom.errors import DataError, RecloomError
from recloom.events import CleaningConfig, Entities, Pseudonyms, ReadReport, read_items, read_users
from recloom.events.columns import ITEM_ID
from recloom.events.interactions import RowCounts, notes_of, nothing_usable, number_columns
from recloom.events.reading import mappings
from recloom.files import replacing
from recloom.version import __version__

Steps = Callable[[str, int, int], None]
"""Called with what is going on, how much is done and of how much."""

ROWS_OF_A_PART = 2_000_000
"""About how many interactions a worker cleans at once: some 200 bytes each."""
SAMPLED_USERS = 400_000
"""Of all files together, to part the users evenly."""
REJECTS_HEADER = "file,line,reason,user_id,item_id,timestamp\n"


def prepare_on_cluster(
    interactions: Sequence[str],
    items: str | None = None,
    users: str | None = None,
    *,
    out: Path,
    columns: Mapping[str, str] | None = None,
    cleaning: CleaningConfig | None = None,
    pseudonyms: Pseudonyms | None = None,
    rows_of_a_part: int = ROWS_OF_A_PART,
    progress: Steps | None = None,
) -> tuple[Dataset, ReadReport, Entities | None, Entities | None]:
    """Do what `Dataset.from_files` does, being part of a cluster.

    A file is read by one worker at a time and has to fit into its memory, and so does any one user. The catalogue and
    the users' table are read here.

    Args:
        interactions: Files, globs or folders on a disk that all machines share, or URLs.
        items: The catalogue, on this machine.
        users: What is known of the users, likewise.
        out: The folder to keep `dataset.h5` in, on a disk that all machines share.
        columns: Names of columns that recloom does not recognise.
        cleaning: Which interactions to drop.
        pseudonyms: What to store in the place of user ids.
        rows_of_a_part: About how many interactions are cleaned together.
        progress: Told how many files and parts of each step are done.

    Returns:
        The dataset, what was found in the log, the catalogue and the users.

    Raises:
        DataError: A file cannot be used. What became of the others is kept: mend or remove it, and call again.
    """
    columns, cleaning, out = columns or {}, cleaning or CleaningConfig(), out.absolute()
    work = out.with_name(f".{out.name}.parts")
    files = find_everywhere(interactions)
    looked = _surveys(files, columns)
    header = [name for one in looked.values() for name in one.header]
    of_log, of_items, of_users = mappings(header, items, users, columns)
    errors = {name: one.error for name, one in looked.items() if one.error}
    surveys = {name: one for name, one in looked.items() if not one.error}
    if not surveys:
        raise _several(errors, 0)
    catalogue = read_items(items, columns=of_items) if items else None
    people = read_users(users, columns=of_users) if users else None
    plan = _plan(surveys, of_log, pseudonyms, rows_of_a_part, work)
    good = [file for file in files if file.name in surveys]
    done, more_errors = _sorted(good, plan, work, progress)
    if errors := {**errors, **more_errors}:
        raise _several(errors, len(done))
    parts = _cleaned(done, len(plan.bounds) + 1, cleaning, work, progress)
    paths = [file.name for file in files]
    counts = sum((one.counts for one in done), RowCounts())
    steps: list[Sorted | Cleaned] = [*done, *(part for round_ in parts for part in round_)]
    dropped = _summed([one.dropped for one in steps])
    rows = sum(part.rows for part in parts[-1])
    if rows == 0:
        shown = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        raise nothing_usable(shown, dropped)
    if pseudonyms and people:
        people = pseudonyms.in_users(people)
    dataset = assemble(
        [Path(part.folder) for part in parts[-1] if part.rows],
        out,
        catalogue,
        people,
        pseudonym_key_id=pseudonyms.key_id if pseudonyms else "",
    )
    taken_for = {theirs: ours for file in good for theirs, ours in surveys[file.name].names.items()}
    report = ReadReport(paths, counts.rows, rows, dropped, taken_for, notes_of(counts))
    _write_rejects(steps, out)
    entities = {"items": catalogue.report if catalogue else None, "users": people.report if people else None}
    write_report(out, {"interactions": report} | {name: one for name, one in entities.items() if one})
    shutil.rmtree(work)
    return dataset, report, catalogue, people


def _surveys(files: Sequence[FileThere], columns: Mapping[str, str]) -> dict[str, Survey]:
    sample = max(50, SAMPLED_USERS // len(files))
    found = dict(spread(files, survey, (dict(columns), sample)))
    return {file.name: found[place] for place, file in enumerate(files)}


def _plan(
    surveys: Mapping[str, Survey],
    columns: dict[str, str],
    pseudonyms: Pseudonyms | None,
    rows_of_a_part: int,
    work: Path,
) -> Plan:
    """Decide how users are parted: as before, where the same log or most of it was begun with; else evenly."""
    numbers = frozenset(number_columns(one.verdicts for one in surveys.values()))
    rows = sum(one.rows for one in surveys.values())
    facts = [__version__, columns, sorted(numbers), pseudonyms.key_id if pseudonyms else "", rows_of_a_part]
    begun = work / "plan.json"
    kept = json.loads(begun.read_text(encoding="utf-8")) if begun.exists() else {}
    if kept.get("facts") == facts:
        return Plan(columns, numbers, kept["bounds"], pseudonyms)
    shutil.rmtree(work, ignore_errors=True)
    bounds = _bounds(list(surveys.values()), math.ceil(rows / rows_of_a_part), pseudonyms)
    with replacing(begun) as beside:
        beside.write_text(json.dumps({"facts": facts, "bounds": bounds}), encoding="utf-8")
    return Plan(columns, numbers, bounds, pseudonyms)


def _bounds(surveys: Sequence[Survey], num_parts: int, pseudonyms: Pseudonyms | None) -> list[str]:
    """Return the users at which parts of about as many interactions begin."""
    spell = pseudonyms.of if pseudonyms else str
    # Each user of a sample stands for the rows between it and the next.
    sampled = sorted((spell(user), one.rows / len(one.users)) for one in surveys for user in one.users)
    weight, each = 0.0, sum(share for _, share in sampled) / max(1, num_parts)
    bounds: list[str] = []
    for user, share in sampled:
        if weight >= each * (len(bounds) + 1) and (not bounds or user > bounds[-1]):
            bounds.append(user)
        weight += share
    return bounds


def _sorted(
    files: Sequence[FileThere], plan: Plan, work: Path, progress: Steps | None
) -> tuple[list[Sorted], dict[str, DataError]]:
    done: dict[int, Sorted] = {}
    errors: dict[str, DataError] = {}
    for place, result in spread(files, sort_file, (plan, work), progress=_step(progress, "reading files")):
        if isinstance(result, DataError):
            errors[files[place].name] = result
        else:
            done[place] = result
    return [done[place] for place in sorted(done)], errors


def _cleaned(
    done: Sequence[Sorted], num_parts: int, cleaning: CleaningConfig, work: Path, progress: Steps | None
) -> list[list[Cleaned]]:
    """Clean every part of the users; return what each round dropped, the last being of datasets."""
    sources = [one.folder for one in done]
    key = hashlib.blake2b(f"{sources} {cleaning}".encode(), digest_size=12).hexdigest()
    jobs = list(range(num_parts))
    rounds = [_all(jobs, clean_part, (sources, key, cleaning, work), _step(progress, "cleaning parts of users"))]
    if cleaning.min_interactions <= 1:
        return rounds
    rows = [part.folder for part in rounds[0]]
    num_dropped = 1
    while num_dropped:
        few = work / f"few-{key}-{len(rounds)}.parquet"
        _write_few([Path(part.folder) / "items.parquet" for part in rounds[-1]], cleaning.min_interactions, few)
        before = [part.folder for part in rounds[-1]]
        shared = (rows, before, str(few), cleaning.min_interactions, len(rounds))
        rounds.append(_all(jobs, core_round, shared, _step(progress, "dropping who has few interactions")))
        num_dropped = sum(sum(part.dropped.values()) for part in rounds[-1])
    last = list(zip(rows, (part.folder for part in rounds[-1]), strict=True))
    rounds.append(_all(last, finish_part, (), _step(progress, "writing datasets")))
    return rounds


def _all(
    jobs: Sequence[int] | Sequence[tuple[str, str]],
    function: Callable[..., Cleaned],
    shared: tuple[Any, ...],
    report: Progress | None,
) -> list[Cleaned]:
    done = dict(spread(jobs, function, shared, progress=report))
    return [done[place] for place in range(len(jobs))]


def _write_few(counts: Sequence[Path], minimum: int, path: Path) -> None:
    """Write which items have too few interactions of everybody."""
    total = pl.concat([pl.scan_parquet(one) for one in counts]).group_by(ITEM_ID).agg(pl.col("n").sum())
    with replacing(path) as beside:
        total.filter(pl.col("n") < minimum).select(ITEM_ID).sort(ITEM_ID).collect().write_parquet(beside)


def _summed(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total.most_common())


def _write_rejects(parts: Sequence[Sorted | Cleaned], out: Path) -> None:
    with replacing(out / "rejects.csv") as beside, beside.open("wb") as file:
        file.write(REJECTS_HEADER.encode())
        for part in parts:
            with (Path(part.folder) / "rejects.csv").open("rb") as rows:
                shutil.copyfileobj(rows, file)


def _several(errors: Mapping[str, DataError], num_kept: int) -> RecloomError:
    """Return one error that names every file that cannot be used."""
    first = str(next(iter(errors.values())))
    others = f"; and {len(errors) - 1} more: {', '.join(list(errors)[1:6])}" if len(errors) > 1 else ""
    kept = f"; the other {num_kept} files are done and kept: mend or remove it, and go on with the same command"
    return DataError(f"{first}{others}{kept if num_kept else ''}")


def _step(progress: Steps | None, what: str) -> Progress | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
