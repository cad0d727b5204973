import pytest

from recloom.dataset import Dataset, join
from recloom.errors import DataError
from recloom.events import Pseudonyms


@pytest.fixture
def shops(tmp_path):
    """Two shops: `ann` is known to both, and both have an item `1`."""
    (tmp_path / "books.csv").write_text(
        "user_id,item_id,timestamp,behavior,shelf\nann,1,100,view,A\nann,2,300,purchase,B\nbob,1,200,view,A\n"
    )
    (tmp_path / "book_items.csv").write_text("item_id,title,pages\n1,Emma,400\n2,Dracula,380\n")
    (tmp_path / "book_users.csv").write_text("user_id,city\nann,Leeds\nbob,York\n")
    (tmp_path / "films.csv").write_text("user_id,item_id,timestamp,device,shelf\nann,1,250,tv,7\ncid,9,400,phone,8\n")
    (tmp_path / "film_items.csv").write_text("item_id,title,year\n1,Heat,1995\n")
    (tmp_path / "film_users.csv").write_text("user_id,city,age\nann,Hull,30\ncid,Bath,40\n")
    books = Dataset.from_files(tmp_path / "books.csv", tmp_path / "book_items.csv", tmp_path / "book_users.csv")
    films = Dataset.from_files(tmp_path / "films.csv", tmp_path / "film_items.csv", tmp_path / "film_users.csv")
    return {"books": books, "films": films}


def history(dataset: Dataset, user: str) -> list[str]:
    return [dataset.items.id_of(int(item)) for item in dataset.item_index[dataset.history_of(user)]]


def test_ids_of_two_datasets_do_not_clash(shops):
    joined = join(shops)
    assert joined.items.ids == ["books:1", "books:2", "films:1", "films:9"]
    assert joined.users.ids == ["books:ann", "books:bob", "films:ann", "films:cid"]
    assert history(joined, "books:ann") == ["books:1", "books:2"]
    assert joined.num_interactions == 5


def test_the_same_person_has_one_history_over_both_catalogues_in_order_of_time(shops):
    joined = join(shops, same_people=True)
    assert joined.users.ids == ["ann", "bob", "cid"]
    assert history(joined, "ann") == ["books:1", "films:1", "books:2"]
    assert joined.timestamp[joined.history_of("ann")].tolist() == [100, 250, 300]


def test_columns_of_both_are_there_and_unknown_where_a_dataset_lacks_them(shops):
    joined = join(shops, same_people=True)
    items = {row["item_id"]: row for row in joined.item_table.to_dicts()}
    assert items["books:1"] == {"item_id": "books:1", "title": "Emma", "pages": 400, "domain": "books", "year": None}
    assert items["films:1"]["domain"] == "films"
    assert items["films:1"]["pages"] is None
    held = joined.held_on("ann")
    assert held["user"] == {"user_id": "ann", "city": "Leeds", "age": 30}  # the first table that says it
    assert [row["device"] for row in held["interactions"]] == [None, "tv", None]
    assert [row["behavior"] for row in held["interactions"]] == ["view", "interaction", "purchase"]


def test_what_is_a_word_in_one_log_and_a_number_in_the_other_is_a_word(shops):
    shelves = [row["shelf"] for row in join(shops, same_people=True).held_on("ann")["interactions"]]
    assert shelves == ["A", "7", "B"]


def test_a_weight_that_one_log_lacks_is_one(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,weight\nann,1,100,3\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\nann,1,100\n")
    joined = join({name: Dataset.from_files(tmp_path / f"{name}.csv") for name in "ab"})
    assert joined.weight.tolist() == [3, 1]


def test_it_is_stored_where_it_is_told_to_be(shops, tmp_path):
    joined = join(shops, out=tmp_path / "both")
    assert Dataset.open(tmp_path / "both").fingerprint == joined.fingerprint


def test_pseudonyms_are_joined_only_where_the_same_key_still_tells_who_is_who(shops, tmp_path):
    key = Pseudonyms.from_file(tmp_path / "key", create=True)
    known = {n: Dataset.from_files(tmp_path / f"{n}.csv", pseudonyms=key) for n in ("books", "films")}
    assert join(known, same_people=True).pseudonym_key_id == key.key_id
    with pytest.raises(DataError, match="user ids are pseudonyms, and would be known by no key"):
        join(known)
    with pytest.raises(DataError, match="prepare all of them with the same --pseudonym-key"):
        join({"books": known["books"], "films": shops["films"]}, same_people=True)


def test_a_catalogue_with_a_column_domain_is_refused(tmp_path, shops):
    (tmp_path / "items.csv").write_text("item_id,domain\n1,web\n")
    own = Dataset.from_files(tmp_path / "films.csv", tmp_path / "items.csv")
    with pytest.raises(DataError, match="has a column 'domain' of its own"):
        join({"books": shops["books"], "own": own})
