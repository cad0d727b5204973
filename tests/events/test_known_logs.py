from pathlib import Path

import pytest

from recloom.events import read_interactions, read_items, read_users

DATA = Path(__file__).parents[2] / "../shared/data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the data sets of ../shared/data are not here")


@pytest.mark.parametrize(
    ("name", "num_users", "num_items", "num_interactions"),
    [
        ("amazon-beauty-2014", 22_332, 12_086, 198_215),
        ("ml-1m", 6_040, 3_416, 999_611),
        ("steam-100k", 10_369, 3_593, 126_824),
        ("coco-courses", 24_036, 8_166, 159_664),
        ("deskdrop", 1_641, 214, 24_433),
    ],
)
def test_every_interaction_of_a_known_log_is_kept(
    name: str, num_users: int, num_items: int, num_interactions: int
) -> None:
    log = read_interactions(DATA / name / "interactions.csv.gz")
    assert log.table["user_id"].n_unique() == num_users
    assert log.table["item_id"].n_unique() <= num_items
    # 100 rows may repeat others exactly
    assert num_interactions - 100 <= log.report.rows_kept <= log.report.rows_read == num_interactions


def test_the_events_of_deskdrop_are_behaviors() -> None:
    behaviors = set(read_interactions(DATA / "deskdrop/interactions.csv.gz").table["behavior"])
    assert "view" in behaviors
    assert "interaction" not in behaviors


def test_chinese_captions_are_a_catalogue() -> None:
    items = read_items(DATA / "kuairec-captions-zh/items.csv.gz")
    assert len(items.table) == 10_728
    assert items.table["title"][0] == "精神小伙路难走 程哥你狗粮慢点撒"


def test_movielens_users_have_numbers_and_words() -> None:
    users = read_users(DATA / "ml-100k/users.csv.gz").table
    assert users.row(0) == ("1", 24.0, "M", "technician")
