from collections.abc import Callable
from pathlib import Path

import pytest

from recloom.errors import ConfigError
from recloom.events import CleaningConfig, Interactions, read_interactions

Write = Callable[[str, str | bytes], Path]

HEADER = "user_id,item_id,timestamp,behavior\n"
T = 1_600_000_200  # within an hour by the clock


def read(write: Write, rows: list[str], **cleaning: int) -> Interactions:
    return read_interactions(write("log.csv", HEADER + "\n".join(rows)), cleaning=CleaningConfig(**cleaning))


def kept(log: Interactions) -> list[tuple[str, str, int]]:
    return log.table.select("user_id", "item_id", "timestamp").rows()


def test_an_exact_duplicate_is_dropped_and_the_first_stays(write: Write) -> None:
    log = read(write, [f"a,x,{T},view", f"b,x,{T},view", f"a,x,{T},view"])
    assert kept(log) == [("a", "x", T), ("b", "x", T)]
    assert log.report.dropped == {"exact duplicate": 1}
    assert log.rejects.rows(named=True) == [
        {
            "file": log.report.files[0],
            "line": 4,
            "reason": "exact duplicate",
            "user_id": "a",
            "item_id": "x",
            "timestamp": str(T),
        }
    ]


def test_duplicates_are_found_among_other_rows_of_the_same_time(write: Write) -> None:
    log = read(write, [f"a,{item},{T},view" for item in "xyxzy"])
    assert [item for _, item, _ in kept(log)] == ["x", "y", "z"]


def test_rows_that_differ_in_any_column_are_no_duplicates(write: Write) -> None:
    log = read(write, [f"a,x,{T},view", f"a,x,{T},cart", f"a,x,{T}.5,view"])
    assert log.report.dropped == {}


def test_duplicates_stay_when_told_so(write: Write) -> None:
    log = read_interactions(
        write("log.csv", HEADER + f"a,x,{T},view\na,x,{T},view\n"), cleaning=CleaningConfig(drop_duplicates=False)
    )
    assert len(log.table) == 2


def test_repeats_are_off_by_default(write: Write) -> None:
    assert len(read(write, [f"a,x,{T},view", f"a,x,{T + 1},view"]).table) == 2


def test_a_repeat_counts_from_the_last_one_kept(write: Write) -> None:
    # With 10 s: 0 stays, 6 is 6 behind it, 12 is 12 behind it and stays, 18 is 6 behind 12, 30 is 18 behind it.
    log = read(write, [f"a,x,{T + second},view" for second in (0, 6, 12, 18, 30)], repeat_seconds=10)
    assert [at - T for _, _, at in kept(log)] == [0, 12, 30]
    assert log.report.dropped == {"repeat within 10 s": 2}
    assert log.rejects["line"].to_list() == [3, 5]


def test_a_repeat_at_just_n_seconds_is_dropped(write: Write) -> None:
    log = read(write, [f"a,x,{T + second},view" for second in (0, 10, 21)], repeat_seconds=10)
    assert [at - T for _, _, at in kept(log)] == [0, 21]


def test_a_repeat_has_the_same_user_item_and_behavior(write: Write) -> None:
    rows = [f"a,x,{T},view", f"b,x,{T + 1},view", f"a,y,{T + 2},view", f"a,x,{T + 3},cart", f"a,x,{T + 4},view"]
    log = read(write, rows, repeat_seconds=10)
    assert log.rejects["line"].to_list() == [6]


def test_a_user_with_an_implausible_rate_is_dropped_whole(write: Write) -> None:
    robot = [f"robot,x{n},{T + n},view" for n in range(4)] + [f"robot,y,{T + 90_000},view"]
    person = [f"person,x{n},{T + n * 3600},view" for n in range(4)]
    log = read(write, robot + person, max_events_per_hour=3)
    assert set(log.table["user_id"]) == {"person"}
    assert log.report.dropped == {"implausible rate": 5}
    assert len(read(write, robot + person, max_events_per_hour=4).table) == 9


def test_min_interactions_is_repeated_until_all_have_enough(write: Write) -> None:
    # Item z goes for having one; then user c has one left and goes; a, b, x, y have two each.
    rows = [f"{user},{item},{T},view" for user, item in ("ax", "ay", "bx", "by", "cx", "cz")]
    log = read(write, rows, min_interactions=2)
    assert [(user, item) for user, item, _ in kept(log)] == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert log.report.dropped == {"below min-interactions": 2}


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cleaning.repeat_seconds is -1; it has to be 0 \(off\) or more"):
        CleaningConfig(repeat_seconds=-1)
