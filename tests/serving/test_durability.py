"""Kills, full disks and stops: what was acknowledged stays, and the service comes back."""

import os
import shutil
import signal
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event as sqlalchemy_event

from recloom.files import CHECKSUMS
from tests.serving.helpers import ask, post, problem, wait_until


def stored_ids(path):
    return {row[0] for row in sqlite3.connect(path).execute("SELECT event_id FROM events")}


def kill(process):
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.wait()


def test_a_kill_while_events_come_in_loses_none_that_was_acknowledged(start, serve, model, tmp_path):
    process = start(model).wait_until_ready()
    acknowledged: set[str] = set()

    def send(sender):
        with httpx.Client(base_url=process.url) as client:
            for number in range(100_000):
                names = [f"{sender}-{number}-{part}" for part in range(3)]
                body = [{"event_id": name, "user_id": f"s{sender}", "item_id": "i10"} for name in names]
                try:
                    if client.post("/v1/events", json={"events": body}).status_code == 200:
                        acknowledged.update(names)
                except httpx.TransportError:
                    return

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 150, 30)
    kill(process)
    for thread in threads:
        thread.join()
    assert acknowledged <= stored_ids(tmp_path / "process.db")
    assert ask(serve(database=str(tmp_path / "process.db")), user_id="s0")["served_by"] == "weave"


def test_a_kill_while_a_model_is_swapped_leaves_a_service_that_starts(start, serve, model, second_model, tmp_path):
    process = start(model).wait_until_ready()
    answer = httpx.post(f"{process.url}/v1/models", json={"name": "default", "path": str(second_model)})
    assert answer.status_code == 202
    kill(process)
    answer = ask(serve(database=str(tmp_path / "process.db")), user_id="u01", k=5)
    assert answer["served_by"] == "markov"
    assert len(answer["items"]) == 5


def test_a_kill_between_the_two_renames_of_a_save_is_mended_at_the_start(serve, model_copy):
    model_copy.rename(model_copy.with_name(f".{model_copy.name}.previous"))
    assert ask(serve(model_copy), user_id="u01")["served_by"] == "weave"


def test_a_polite_stop_answers_what_is_under_way_and_then_ends(start, model, tmp_path):
    process = start(model).wait_until_ready()
    codes: list[int] = []

    def send():
        with httpx.Client(base_url=process.url) as client:
            for number in range(100_000):
                body = {"events": [{"event_id": f"{number}", "user_id": "a", "item_id": "i10"}]}
                try:
                    codes.append(client.post("/v1/events", json=body).status_code)
                except httpx.TransportError:
                    return

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: len(codes) > 20, 30)
    process.process.send_signal(signal.SIGTERM)
    thread.join(20)
    assert process.process.wait(20) in (0, -signal.SIGTERM)
    assert set(codes) <= {200, 503}
    assert len(stored_ids(tmp_path / "process.db")) >= codes.count(200)


def test_a_list_that_waits_when_the_service_stops_is_still_made(model, tmp_path):
    from recloom.serving import create_app
    from recloom.serving.engine import BusyError, Wanted

    service = create_app(model, str(tmp_path / "live.db")).state.service
    is_free = threading.Event()
    service.engine.call(is_free.wait)
    waiting = [service.engine.recommend(Wanted(3, f"u{number:02}")) for number in range(20)]
    closing = threading.Thread(target=service.engine.close)
    closing.start()
    is_free.set()
    assert all(len(future.result(10).answer.items) == 3 for future in waiting)
    closing.join(10)
    with pytest.raises(BusyError):
        service.engine.recommend(Wanted(3, "u01"))
    service.store.close()


@pytest.fixture
def small_disk(serve):
    """A service whose database may not grow, until it may."""
    client = serve()
    engine = client.app.state.service.store.database.engine
    limit = {"pages": 0}

    @sqlalchemy_event.listens_for(engine, "begin")
    def keep_small(connection):
        pages = limit["pages"] or 1_000_000
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").fetchall()

    with engine.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return client, limit, pages


def test_a_full_disk_is_told_and_forgotten_when_there_is_room_again(small_disk):
    client, limit, pages = small_disk
    before, now = {"item_id": "i10", "timestamp": 1_700_000_000}, {"timestamp": 1_700_000_060}
    post(client, {"event_id": "before", "user_id": "ann", **before})
    limit["pages"] = pages
    events = [{"user_id": "ann", "item_id": "x" * 200, "device": "y" * 500} for _ in range(500)]
    answer = client.post("/v1/events", json={"events": events})
    problem(answer, 503, "the disk is full, so nothing was written; free some space")
    assert answer.headers["retry-after"] == "1"
    big = {f"column{number}": "z" * 2_000 for number in range(100)}
    problem(client.put("/v1/items/big", json=big), 503, "the disk is full")
    asked = ask(client, user_id="ann", context=now)["items"]
    assert asked == ask(client, history=[before], context=now)["items"]  # reading goes on
    limit["pages"] = 0
    assert post(client, *events)["accepted"] == 500
    assert client.put("/v1/items/big", json=big).status_code == 202
    assert ask(client, user_id="ann")["unknown_items"] == 500


def test_a_database_that_is_gone_is_told_and_the_process_lives(serve, tmp_path):
    client = serve()
    ask(client, user_id="u01")
    client.app.state.service.store.add(()).result(5)
    client.app.state.service.store.database.engine.dispose()

    def take_its_place():
        for path in tmp_path.glob("live.db*"):
            path.unlink()
        try:
            (tmp_path / "live.db").mkdir()
        except FileExistsError:  # the service, which looks five times a second, was quicker
            return False
        return True

    wait_until(take_its_place)
    problem(client.get("/readyz"), 503, "the database does not answer")
    problem(client.post("/v1/recommendations", json={"user_id": "u01"}), 503, "the database does not answer")
    problem(client.post("/v1/events", json={"events": [{"user_id": "a", "item_id": "i01"}]}), 503, "the database")
    assert client.get("/healthz").status_code == 200


def test_a_damaged_model_is_not_served_at_the_start(start, model_copy):
    weights = model_copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    process = start(model_copy)
    assert process.process.wait(60) == 2
    assert "model.safetensors" in process.log.read_text()


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_a_model_that_is_being_loaded(start, model, model_copy, told):
    process = start(model_copy).wait_until_ready()
    beside = Path(shutil.copytree(model, model_copy.with_name("beside")))
    with (beside / "large").open("wb") as large:  # a hole that takes minutes to be read, and no room on the disk
        large.truncate(1 << 40)
    sums = beside / CHECKSUMS
    sums.write_text(f"{'0' * 64}  large\n{sums.read_text()}")
    model_copy.rename(model_copy.with_name("previous"))
    beside.rename(model_copy)
    large_file = str(model_copy / "large")
    descriptors = Path(f"/proc/{process.process.pid}/fd")
    wait_until(lambda: large_file in {os.path.realpath(opened) for opened in descriptors.iterdir()}, 10)
    process.process.send_signal(told)
    assert process.process.wait(10) in (0, -told)
