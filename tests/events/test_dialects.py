import pytest

from recloom.errors import DataError
from recloom.events.dialects import headerless_columns, recognise, require

LOG = ("user_id", "item_id", "timestamp", "behavior", "weight")
CATALOGUE = ("item_id", "title", "image")


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("user_id,item_id,timestamp,behavior,weight", "user_id,item_id,timestamp,behavior,weight"),
        ("userId,movieId,rating,timestamp", "user_id,item_id,rating,timestamp"),
        ("user_id:token,item_id:token,rating:float,timestamp:float", "user_id,item_id,rating,timestamp"),
        ("USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE", "user_id,item_id,timestamp,behavior,EVENT_VALUE"),
        ("FeedbackType,UserId,ItemId,Timestamp,Comment", "behavior,user_id,item_id,timestamp,Comment"),
        ("用户ID,行为类型,时间戳,商品ID,商品类别,价格", "user_id,behavior,timestamp,item_id,商品类别,价格"),
        ("user,product_id,time,action", "user_id,item_id,timestamp,behavior"),
        ("uid,iid,ts,event", "user_id,item_id,timestamp,behavior"),
        ("user_id,item_id,timestamp,event,session", "user_id,item_id,timestamp,behavior,session"),
        ("\ufeffuser_id, Item ID ,timestamp", "user_id,item_id,timestamp"),
        ("reviewerID,asin,unixReviewTime,overall", "user_id,item_id,timestamp,overall"),
    ],
)
def test_headers_of_known_logs_are_recognised(header: str, ours: str) -> None:
    assert list(recognise(header.split(","), LOG, {}).values()) == ours.split(",")


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("item_id,title,genres,image", "item_id,title,genres,image"),
        ("item_id:token,movie_title:token_seq,class:token_seq", "item_id,title,class"),
        ("movieId,title,genres", "item_id,title,genres"),
        ("ItemId,Labels,Categories,Comment", "item_id,Labels,Categories,Comment"),
        ("商品ID,商品名称,商品类别,价格", "item_id,title,商品类别,价格"),
        ("id,item_id,name,weight,timestamp", "id,item_id,title,weight,timestamp"),
        ("item_id,title,name", "item_id,title,name"),
    ],
)
def test_headers_of_known_catalogues_are_recognised(header: str, ours: str) -> None:
    assert list(recognise(header.split(","), CATALOGUE, {}).values()) == ours.split(",")


def test_what_the_caller_says_wins_and_the_column_it_displaces_keeps_a_name_of_its_own() -> None:
    names = recognise(["user_id", "buyer", "item_id", "timestamp"], LOG, {"user_id": "buyer"})
    assert names == {"user_id": "user_id_", "buyer": "user_id", "item_id": "item_id", "timestamp": "timestamp"}


def test_no_two_columns_get_one_name() -> None:
    names = recognise(["tag:token", "tag:float", "tag"], CATALOGUE, {})
    assert len(set(names.values())) == 3


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            ["user_id", "item_id", "visited_at", "x"],
            r"lacks the column timestamp; found user_id, item_id, visited_at, x",
        ),
        (["user_id", "item_id", "when", "timestmp"], r"map it with --column timestamp=timestmp"),
        (["buyer", "item_id", "timestamp"], r"map it with --column user_id=buyer"),
        (["user_id^item_id^timestamp"], "separated by something other than a comma, tab, semicolon or bar"),
        (["1", "1193", "978300760"], "the first line looks like data: put a header such as user_id,item_id,timestamp"),
        (["user_id", "item_id"], "add a column timestamp to the file"),
    ],
)
def test_a_missing_column_is_named_with_what_to_do(header: list[str], words: str) -> None:
    needed = ("user_id", "item_id", "timestamp")
    with pytest.raises(DataError, match=words):
        require(recognise(header, LOG, {}), needed, "log.csv")


def test_a_message_does_not_repeat_a_header_of_thousands_of_columns() -> None:
    header = [f"column_{i}" for i in range(1000)]
    with pytest.raises(DataError, match="column_29 and 970 more"):
        require(recognise(header, LOG, {}), ("user_id",), "log.csv")


def test_movielens_files_without_header_are_known_by_their_fields() -> None:
    assert headerless_columns(4, "ratings.dat") == ["user_id", "item_id", "rating", "timestamp"]
    with pytest.raises(DataError, match=r"x.dat has 7 fields between '::'; MovieLens ratings have 4"):
        headerless_columns(7, "x.dat")
