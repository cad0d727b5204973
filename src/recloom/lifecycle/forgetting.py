"""A model and somebody who wants to be forgotten -> the model as if they had never been there, and a receipt.

First the data goes: the person's interactions leave the model's dataset and every older version goes with its files.
Then the weights: the model is trained again from nothing on what is left, which is exact, because nothing of the person
has a part in it. Where people are dealt over shards, that is the member of their shard alone, since they had no part in
the others. In between the weights still carry what they learned, and the receipt says so.
"""

import hashlib
import hmac
import json
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from recloom.dataset import Dataset, without
from recloom.errors import UnknownIdError
from recloom.files import CHECKSUMS, current_folder, file_digest, make_key, replacing
from recloom.fitting import load_pretrained
from recloom.lifecycle.versions import changing, replace_all
from recloom.recommender import Recommender
from recloom.training import Progress


@dataclass(frozen=True)
class Removal:
    """What was removed from one place."""

    where: str
    interactions: int


@dataclass(frozen=True)
class RetrainedShards:
    """Which parts of a model that deals people over shards were trained again."""

    shards: list[int]
    """Their numbers, from 1."""
    num_shards: int
    work: float
    """Interactions that were learned again, as a share of all."""


@dataclass(frozen=True)
class Receipt:
    """What was done about somebody, without saying who it was."""

    number: str
    time: int
    """UTC seconds."""
    people: list[str]
    """A digest of each person's id that only who holds the key can make."""
    removed: list[Removal]
    weights: str
    """`retrained`, or `carry` while they have yet to be."""
    first_version_without: str
    """SHA-256 of the checksums of the first model that was trained without them; "" while there is none."""
    shards: RetrainedShards | None = None
    """None where a model was trained again whole, or not yet."""
    signature: str = ""
    """HMAC-SHA256 of all other fields, but for those that are null, as JSON with sorted keys and no spaces."""

    def signed(self, key: bytes) -> "Receipt":
        """Return the receipt with its signature."""
        return replace(self, signature=_mac(key, _canonical(self)))

    def is_genuine(self, key: bytes) -> bool:
        """Whether the receipt was signed with this key and says what it said then."""
        return hmac.compare_digest(self.signature, _mac(key, _canonical(self)))

    @classmethod
    def from_json(cls, text: str) -> "Receipt":
        """Read what was written."""
        fields = json.loads(text)
        fields["removed"] = [Removal(**one) for one in fields["removed"]]
        if fields.get("shards"):
            fields["shards"] = RetrainedShards(**fields["shards"])
        return cls(**fields)


def forget(
    folder: Path,
    users: Sequence[str],
    *,
    datasets: Sequence[Path] = (),
    elsewhere: Sequence[Removal] = (),
    retrain: bool = True,
    progress: Progress | None = None,
) -> tuple[Receipt, Path]:
    """Forget people, and train the model again without them.

    Args:
        folder: The model, or its versions.
        users: Who; none, to train again what was put off before.
        datasets: Prepared datasets that hold them too.
        elsewhere: What has been removed from other places, for the receipt.
        retrain: Whether to train again at once. If not, only the data goes, and the weights carry on.
        progress: Told what is going on.

    Returns:
        The receipt, and the file that it was written to.

    Raises:
        UnknownIdError: The model knows none of somebody; nothing is removed then.
    """
    with changing(folder):
        before = Recommender.load(folder)
        places = [dataset for dataset in datasets if any(user in Dataset.open(dataset).users for user in users)]
        known = [user for user in users if user in before.dataset.users]
        if stranger := [user for user in users if user not in known and not places and not elsewhere]:
            raise UnknownIdError(f"{folder} knows nobody called {stranger[0]!r}; nothing was removed")
        if retrain:
            load_pretrained(before.config)  # what training anew begins with is there, or nothing is removed
        removed = [
            *elsewhere,
            *(Removal(f"dataset {place.name}", _forget_in_dataset(place, users)) for place in places),
        ]
        after = before
        if known:
            after = before.without_users(known)
            gone = before.dataset.num_interactions - after.dataset.num_interactions
            removed.append(Removal(f"model {folder.name}", gone))
            removed += [Removal(f"model {folder.name}, version {name}", 0) for name in replace_all(after, folder)]
        carries = after.run.lineage.get("carries", [])
        shards = None
        if carries and retrain:
            again = after.fit_again(before.config, progress)
            replace_all(again, folder)
            shards = _retrained(again, carries)
        weights = "carry" if carries and not retrain else "retrained"
        version = "" if weights == "carry" else file_digest(current_folder(folder) / CHECKSUMS)
        make_key(_key_path(folder))
        key = read_key(folder)
        people = [_mac(key, user.encode()) for user in users]
        receipt = Receipt(uuid.uuid4().hex, int(time.time()), people, removed, weights, version, shards).signed(key)
        path = folder.with_name(f"{folder.name}.receipts") / f"{receipt.number}.json"
        with replacing(path) as beside:
            beside.write_text(json.dumps(asdict(receipt), indent=1), encoding="utf-8")
    return receipt, path


def read_key(folder: Path) -> bytes:
    """Return the key that the receipts of a model are signed with."""
    return bytes.fromhex(_key_path(folder).read_text(encoding="utf-8").strip())


def _retrained(again: Recommender, carried: Sequence[int]) -> RetrainedShards | None:
    interactions = [record["interactions"] for record in again.run.shards]
    if not interactions:
        return None
    work = sum(interactions[number] for number in carried) / sum(interactions)
    return RetrainedShards([number + 1 for number in carried], len(interactions), round(work, 4))


def _forget_in_dataset(folder: Path, users: Sequence[str]) -> int:
    dataset = Dataset.open(folder)
    fewer = without(dataset, users=users)
    with replacing(dataset.path) as beside:
        shutil.copyfile(fewer.path, beside)
    rejects = folder / "rejects.csv"
    if rejects.exists():
        table = pl.read_csv(rejects, infer_schema=False)
        with replacing(rejects) as beside:
            table.filter(~pl.col("user_id").fill_null("").is_in(users)).write_csv(beside)
    return dataset.num_interactions - fewer.num_interactions


def _canonical(receipt: Receipt) -> bytes:
    # A field that is null was no field yet where a receipt is older, and that one stays genuine.
    fields = {n: value for n, value in asdict(receipt).items() if n != "signature" and value is not None}
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _mac(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _key_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.receipts.key")
