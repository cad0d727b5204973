"""Headers of known systems -> the names of `columns.py`.

Plain names, RecBole atomic files (`user_id:token`), MovieLens (`userId`; `::` files without a header), Amazon
Personalize (`USER_ID`, `EVENT_TYPE`), Gorse (`FeedbackType`) and Chinese headers are recognised by the words they
use; anything else is named by the caller.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from recloom.errors import DataError
from recloom.events.columns import BEHAVIOR, IMAGE, ITEM_ID, TIMESTAMP, TITLE, USER_ID, VECTOR_PREFIX, WEIGHT

# Spelled in lower case without "_", "-" and spaces. The first spelling that a header has wins.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    USER_ID: ("userid", "user", "uid", "visitorid", "customerid", "reviewerid", "用户id", "用户"),
    ITEM_ID: (
        "itemid", "item", "iid", "movieid", "productid", "contentid", "articleid", "courseid", "videoid", "parentasin",
        "asin", "商品id", "物品id", "课程id", "商品",
    ),
    TIMESTAMP: (
        "timestamp", "time", "ts", "datetime", "eventtime", "createdat", "date", "unixreviewtime",
        "时间戳", "时间", "行为时间",
    ),
    BEHAVIOR: (
        "behavior", "behaviour", "behaviortype", "event", "eventtype", "feedbacktype", "action", "行为类型", "行为",
    ),
    WEIGHT: ("weight", "权重"),
    TITLE: ("title", "name", "movietitle", "itemname", "productname", "商品名称", "标题", "名称", "课程名称"),
    IMAGE: ("image", "imageurl", "imagepath", "图片"),
}  # fmt: skip
_RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")
_HEADERLESS = {  # the files of MovieLens with "::", by the number of fields
    4: [USER_ID, ITEM_ID, "rating", TIMESTAMP],
    3: [ITEM_ID, TITLE, "genres"],
    5: [USER_ID, "gender", "age", "occupation", "zip_code"],
}


def recognise(header: Sequence[str], wanted: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Find out what each column of a file is.

    Args:
        header: Column names as the file spells them.
        wanted: The names to look for; other columns keep their own name.
        mapping: What the caller says: our name -> the file's name. It wins over what is recognised.

    Returns:
        The file's name -> our name, for every column of the header.
    """
    ours = {column: name for name, column in mapping.items() if column in header}
    words = {_plain(column): column for column in reversed(header)}
    for name in wanted:
        if name in ours.values():
            continue
        for spelling in _SPELLINGS.get(name, (name,)):
            if spelling in words and words[spelling] not in ours:
                ours[words[spelling]] = name
                break
    # RecBole writes types behind its names; a column that is not ours keeps the name without the type. A name that
    # is taken, or wanted for what the caller says is another column, gets "_" behind it.
    taken = {*ours.values(), *wanted}
    for column in header:
        if column not in ours:
            short = column.strip() if _is_vector(column.strip()) else column.split(":")[0].strip()
            ours[column] = short if short and short not in taken else f"{column.strip()}_"
            taken.add(ours[column])
    return {column: ours[column] for column in header}


def require(columns: Mapping[str, str], needed: Sequence[str], path: str) -> None:
    """Check that a file has the columns without which it is of no use.

    Raises:
        DataError: One is missing. The message lists the header and suggests how to map one.
    """
    for name in needed:
        if name not in columns.values():
            raise DataError(f"{path} lacks the column {name}; found {_listed(columns)}; {_hint(columns, name, needed)}")


def check_mapping(mapping: Mapping[str, str], headers: Sequence[Sequence[str]]) -> None:
    """Check that every column the caller names is in some header.

    Raises:
        DataError: One is in none of them. The message lists what there is.
    """
    found = list(dict.fromkeys(column for header in headers for column in header))
    for name, column in mapping.items():
        if column not in found:
            raise DataError(f"there is no column {column!r} to use as {name}; found {_listed(found)}")


def headerless_columns(num_fields: int, file_name: str) -> list[str]:
    """Name the fields of a MovieLens `::` file.

    Raises:
        DataError: No MovieLens file has that many fields.
    """
    if num_fields not in _HEADERLESS:
        raise DataError(
            f"{file_name} has {num_fields} fields between '::'; MovieLens ratings have 4, movies 3 and users 5"
        )
    return _HEADERLESS[num_fields]


def _hint(columns: Mapping[str, str], name: str, needed: Sequence[str]) -> str:
    if len(columns) == 1:
        return "is it separated by something other than a comma, tab, semicolon or bar?"
    if all(re.fullmatch(r"-?[\d.]+", column) for column in columns):
        return f"the first line looks like data: put a header such as {','.join(needed)} above it"
    others = [column for column, ours in columns.items() if ours not in _SPELLINGS]
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.3) or others[:1]
    return f"map it with --column {name}={near[0]}" if near else f"add a column {name} to the file"


def _listed(columns: Iterable[str]) -> str:
    """List column names, at a length that a person can read."""
    names = [column if len(column) <= 80 else f"{column[:77]}..." for column in columns]
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _is_vector(column: str) -> bool:
    """Whether a column is a vector of the user's own, `vector:NAME`, and not RecBole's column `vector` of some type."""
    return column.startswith(VECTOR_PREFIX) and column.removeprefix(VECTOR_PREFIX) not in _RECBOLE_TYPES


def _plain(column: str) -> str:
    return column.strip().lstrip("\ufeff").split(":")[0].lower().replace("_", "").replace("-", "").replace(" ", "")
