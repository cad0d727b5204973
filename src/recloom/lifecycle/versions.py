"""The versions of a model in one folder: each is written once, and one of them is current.

    MODEL/CURRENT   the name of the version that counts, "v0002"
    MODEL/v0001/    a model folder as `Recommender.save` writes it
    MODEL/v0002/

Whatever takes a model folder takes such a folder as well, and means the current version. A plain model folder becomes
one when its model is first updated.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recloom.errors import ArtifactError, ConfigError, UnknownIdError
from recloom.files import CURRENT, current_folder, recover, replacing
from recloom.recommender import Recommender, check_replaceable, read_record

FIRST = "v0001"


@dataclass(frozen=True)
class Version:
    """One version of a model."""

    name: str
    is_current: bool
    created: float
    """UTC seconds."""
    size_bytes: int
    validation_ndcg_at_10: float | None
    lineage: dict[str, Any]
    """What it came from: `parent`, what was learned since, and how well the parent did on that."""


def has_versions(folder: Path) -> bool:
    """Whether a folder holds versions, not one plain model."""
    return (folder / CURRENT).is_file()


def list_versions(folder: Path) -> list[Version]:
    """Return the versions of a model, the oldest first.

    Raises:
        ConfigError: The folder holds no versions.
    """
    _check_has_versions(folder)
    current = current_folder(folder)
    versions = []
    for path in _version_folders(folder):
        record = read_record(path)
        size = sum(file.stat().st_size for file in path.iterdir())
        created = (path / "config.toml").stat().st_mtime
        versions.append(
            Version(path.name, path == current, created, size, record.validation_ndcg_at_10, record.lineage)
        )
    return versions


def model_folders(folder: Path) -> list[Path]:
    """Return the folders of all versions of a model, or the one of a plain model."""
    return _version_folders(folder) if has_versions(folder) else [folder]


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep others from changing a model's versions at the same time; a kill lets go.

    Raises:
        ArtifactError: There is no folder of that name.
        ConfigError: Somebody else is at it.
    """
    nothing = ArtifactError(f"there is no model at {folder}; make one with: recloom fit DATASET --out MODEL")
    if not folder.parent.is_dir():
        raise nothing
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{folder} is being updated by another process; wait until it has finished, or stop it"
            ) from None
        # Not before: another process may be between two renames.
        recover(folder)
        if not folder.is_dir():
            path.unlink()
            raise nothing
        yield


def keep(recommender: Recommender, folder: Path) -> str | None:
    """Save a model where others find it: as the current version where there are versions, else as the one model there.

    Returns:
        The version's name; None where there are none.
    """
    if not has_versions(folder):
        recommender.save(folder)
        return None
    with changing(folder):
        return _add(recommender, folder)


def add_version(recommender: Recommender, folder: Path) -> str:
    """Keep what came of the current version as the next one, which is current from then on; return its name.

    To be called while `changing`. A kill at any moment leaves the version before it current and whole.
    """
    parent = current_folder(folder).name if has_versions(folder) else FIRST
    recommender.run = replace(recommender.run, lineage={"parent": parent, **recommender.run.lineage})
    if has_versions(folder):
        return _add(recommender, folder)
    check_replaceable(folder)
    second = _name(2)
    with replacing(folder) as beside:
        beside.mkdir()
        shutil.copytree(folder, beside / FIRST, copy_function=_link)
        recommender.save(beside / second)
        _point_to(beside, second)
    return second


def roll_back(folder: Path, to: str | None = None) -> str:
    """Make an earlier version current: the parent of the one that is, or the one named; return its name.

    Raises:
        ConfigError: There are no versions, or the current one has no parent.
        UnknownIdError: There is no version of that name.
    """
    with changing(folder):
        versions = {version.name: version for version in list_versions(folder)}
        current = current_folder(folder).name
        wanted = to or versions[current].lineage.get("parent")
        if wanted is None:
            raise ConfigError(f"{current} came from no other version; name the one to go to: {', '.join(versions)}")
        if wanted not in versions:
            raise UnknownIdError(f"{folder} has no version {wanted!r}; it has: {', '.join(versions)}")
        _point_to(folder, wanted)
        return wanted


def remove_old(folder: Path, keep_newest: int) -> list[str]:
    """Remove all but the newest versions and the current one; return what was removed.

    Raises:
        ConfigError: There are no versions, or none is to be kept.
    """
    if keep_newest < 1:
        raise ConfigError(f"{keep_newest} versions cannot be kept; keep at least 1")
    with changing(folder):
        _check_has_versions(folder)
        current = current_folder(folder)
        gone = [path for path in _version_folders(folder)[:-keep_newest] if path != current]
        for path in gone:
            shutil.rmtree(path)
        return [path.name for path in gone]


def replace_all(recommender: Recommender, folder: Path) -> list[str]:
    """Keep a model and nothing of what was there before; return the names of the versions that went.

    To be called while `changing`.
    """
    if not has_versions(folder):
        recommender.save(folder)
        return []
    gone = _version_folders(folder)
    _add(recommender, folder)
    for path in gone:
        shutil.rmtree(path)
    return [path.name for path in gone]


def _add(recommender: Recommender, folder: Path) -> str:
    name = _name(int(_version_folders(folder)[-1].name.removeprefix("v")) + 1)
    recommender.save(folder / name)
    _point_to(folder, name)
    return name


def _name(number: int) -> str:
    return f"v{number:04}"


def _version_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("v[0-9]*") if (path / "config.toml").is_file())


def _point_to(folder: Path, name: str) -> None:
    with replacing(folder / CURRENT) as beside:
        beside.write_text(f"{name}\n", encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # the files of a model are never written to again
    except OSError:
        shutil.copy2(source, target)


def _check_has_versions(folder: Path) -> None:
    recover(folder)
    if not has_versions(folder):
        raise ConfigError(f"{folder} holds no versions yet; the first comes with: recloom update {folder} EVENTS")
