"""A weave that learned a circle of films, in memory and in double precision."""

import pytest

from recloom import Recommender
from recloom.dataset import Dataset

STEPS, FILMS = 12, 8
SMALL = {
    "encoder": {"name": "hashing"},
    "training": {"epochs": 2},
    "model": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 4},
}


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Dataset:
    """Everybody walks the same circle, with a device; the last item of the catalogue nobody had."""
    folder = tmp_path_factory.mktemp("films")
    rows = [
        f"u{user:02},i{(user + step) % FILMS},{1_000_000 + user * 100 + step},view,{('mobile', 'web')[user % 2]}"
        for user in range(40)
        for step in range(STEPS)
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,behavior,device", *rows]) + "\n")
    titles = [f"i{item},film number{item} kind{item // 2}" for item in range(FILMS)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *titles, "new,film number9 kind3"]) + "\n")
    return Dataset.from_files(folder / "log.csv", folder / "items.csv")


@pytest.fixture(scope="session")
def fitted(films):
    """Fit a model by name, once: `fitted("weave", fusion="gated")`."""
    made: dict[str, Recommender] = {}

    def fit(name: str = "weave", **model) -> Recommender:
        key = f"{name} {sorted(model.items())}"
        if key not in made:
            own = {**SMALL["model"], **model} if name == "weave" else model
            made[key] = Recommender.fit(films, name, settings={**SMALL, "model": own})
        return made[key]

    return fit
