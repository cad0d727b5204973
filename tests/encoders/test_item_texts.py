import polars as pl
import pytest

from recloom.encoders import behavior_text, context_text, item_texts, item_titles, suggest_encoder
from recloom.errors import ConfigError

FILMS = pl.DataFrame(
    {
        "item_id": ["1", "2", "3"],
        "title": ["Toy Story", "Heat", None],
        "year": [1995.0, None, 1999.0],
        "genres": ["Animation|Children's|Comedy", None, "Drama"],
        "votes": [10.0, 20.0, 30.0],
        "poster": ["https://a.example/1.jpg", "https://a.example/2.jpg", None],
        "image": ["1", "2", "3"],
        "imdb_id": ["tt01", "tt02", "tt03"],
    }
)
SHOP = pl.DataFrame({"item_id": ["1001", "1002"], "商品类别": ["电子产品", None], "价格": [1000.0, 19.9]})


def test_an_item_text_is_the_title_with_its_year_and_then_the_other_words():
    assert item_texts(FILMS) == ["Toy Story (1995). genres: Animation, Children's, Comedy", "Heat", "genres: Drama"]


def test_a_year_that_the_title_already_has_is_not_said_twice():
    assert item_titles(pl.DataFrame({"title": ["Heat (1995)"], "year": [1995]})) == ["Heat (1995)"]


def test_a_title_falls_back_on_the_first_words_of_the_row():
    assert item_titles(FILMS) == ["Toy Story (1995)", "Heat", "Drama"]


def test_a_catalogue_of_category_and_price_is_named_by_both():
    assert item_titles(SHOP) == ["电子产品 1000", ""]
    assert item_texts(SHOP) == ["电子产品 1000", ""]


def test_an_item_without_words_has_an_empty_text():
    assert item_texts(pl.DataFrame({"item_id": ["1"], "votes": [3.0]})) == [""]
    assert item_texts(pl.DataFrame({"item_id": ["1"], "title": [None]}, schema_overrides={"title": pl.String})) == [""]


def test_lists_and_categories_are_words_too():
    items = pl.DataFrame({"title": ["Heat"], "tags": [["crime", "city"]], "language": ["en"]}).cast(
        {"language": pl.Categorical}
    )
    assert item_texts(items) == ["Heat. tags: crime, city. language: en"]


def test_a_bar_in_a_title_stays():
    assert item_texts(pl.DataFrame({"title": ["A | B"], "tags": ["c|d"]})) == ["A | B. tags: c, d"]


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{title} ({year})", {"title": "Heat", "year": 1995.0}, "Heat (1995)"),
        ("{title} ({year})", {"title": "Heat", "year": None}, "Heat"),
        ("{title} ({year}).", {"title": "Heat", "year": None}, "Heat."),
        ("{title} by {brand}", {"title": "Robot", "brand": None}, "Robot"),
        ("{title} by {brand}", {"title": None, "brand": "Hasbro"}, "Hasbro"),
        ("title: {title}; brand: {brand}", {"title": None, "brand": "Hasbro"}, "brand: Hasbro"),
        ("{title}, {brand}, {price}", {"title": "Robot", "brand": "", "price": 9.99}, "Robot, 9.99"),
        ("{title} by {brand}.", {"title": None, "brand": None}, ""),
        ("Film: {title}", {"title": None}, ""),
    ],
)
def test_a_template_leaves_no_debris_of_missing_values(template, row, text):
    types = {name: pl.Float64 if name in ("year", "price") else pl.String for name in row}
    assert item_texts(pl.DataFrame([row], schema=types), template) == [text]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{titel}", r"unknown column 'titel'; found \{item_id\}, \{title\}"),
        ("{title:>10}", "unknown column"),
        ("an item", "names no column"),
        ("{title", "cannot be read"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error_that_lists_the_columns(template, words):
    with pytest.raises(ConfigError, match=words):
        item_texts(FILMS, template)


def test_behavior_text_says_titles_and_spells_items_without_one():
    events = [("view", "1", "Toy Story (1995)"), ("purchase", "2", "Heat (1995)"), ("点击", "1001", "")]
    assert behavior_text(events) == "view Toy Story (1995); purchase Heat (1995); 点击#1001#"
    assert behavior_text([]) == ""


def test_context_text_says_place_time_and_interests():
    saturday_evening = 1_704_571_200  # 2024-01-06 20:00 UTC
    columns = {"location": "Shanghai", "device": "mobile", "page": ""}
    assert (
        context_text(saturday_evening, columns, "jazz|cooking")
        == context_text(saturday_evening, columns, ["jazz", "cooking"])
        == "Shanghai, mobile, Saturday evening, winter, interests: jazz, cooking"
    )


def test_context_text_leaves_out_what_is_unknown_and_names_bare_numbers():
    assert context_text(None, {}) == ""
    assert context_text(None, {"slot": "3"}) == "slot 3"
    assert context_text(0, {}) == "Thursday night, winter"


@pytest.mark.parametrize(
    ("texts", "encoder"),
    [
        (["Toy Story", "Café Müller"], "minilm"),
        (["电子产品", "服装 Nike"], "multilingual"),
        (["Тетрис"], "multilingual"),
        (["123", ""], "minilm"),
        (["A lamp for reading in bed", "Oak chair with arms", "台灯", "木椅"], "multilingual"),  # half of a catalogue
        (["红色连衣裙. category: clothes", "blue jeans. category: clothes"], "multilingual"),
        (["Apple iPhone 15 Pro Max 手机壳"], "multilingual"),
        ([*["Oak chair with arms"] * 19, "木椅"], "minilm"),
        (["A chair that is as long as α, and wider than most"], "minilm"),
    ],
)
def test_the_script_of_the_texts_suggests_the_encoder(texts, encoder):
    assert suggest_encoder(texts) == encoder
