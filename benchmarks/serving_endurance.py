"""A service under everything at once for a while: events, lists, changes of items, new models, and sudden deaths.

    python benchmarks/serving_endurance.py [--minutes 30] [--items 10000] [--out FILE]

A supervisor keeps `recloom serve` running over an untrained model. In the first third of the time it is killed some
times (SIGKILL) and started again; the rest passes without a kill, so that its memory can be judged. Exits with 1 if

- an event that was acknowledged is not in the database exactly once, as it was sent;
- an item is in a list that was asked for after its withdrawal was answered, or an item that somebody took is in a list
  asked for after that was acknowledged, or a list breaks its own filters;
- anything is answered with 4xx or 5xx, or a connection fails, but within a second of a kill or until the service is
  ready again;
- a new model is not in service within half a minute;
- memory grows by more than a tenth from the first to the last third of the time without kills.
"""

import argparse
import http.client
import json
import math
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving_models import CATEGORIES, Made, Server, clean_up_when_told_to_stop, free_port, item_id, make_model

from recloom import Recommender
from recloom.files import CHECKSUMS, file_digest
from recloom.training import hardware, versions

WRITERS, READERS = 2, 3
EVENTS_AT_ONCE = 20
WRITER_PAUSE, READER_PAUSE, CHANGER_PAUSE = 0.1, 0.01, 0.3
SESSIONS = 500
NEW_ITEMS = 50
MOST_KILLS = 5
GRACE_SECONDS = 1.0
"""Around a kill, in which errors are no fault."""
KEPT_SECONDS = 3
"""How long a connection may rest before it is made anew: the service closes one that rests for five seconds."""
SWAP_SECONDS = 30
PLACED_SECONDS = 10
"""How long a new item may take to be shown."""
SAMPLE_SECONDS = 2
SUPERVISOR_SECONDS = 0.2
MOST_GROWTH = 0.1


@dataclass
class Run:
    """What all threads share."""

    made: Made
    folder: Path
    num_items: int
    ends: float
    port: int = field(default_factory=free_port)
    server: Server | None = None
    settled: float = 0.0
    """When the service was last started."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    failures: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Person and item of an event by its id."""
    withdrawn: dict[str, float] = field(default_factory=dict)
    """When the withdrawal of an item was answered."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """When the service was killed, and when it was ready again."""
    errors: list[tuple[float, float, str]] = field(default_factory=list)
    """Beginning and end of a request that went wrong, and how."""
    seconds: list[float] = field(default_factory=list)
    """How long each list took."""
    placed_seconds: list[float] = field(default_factory=list)
    swap_seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends

    def fail(self, what: str) -> None:
        with self.lock:
            self.failures.append(what)

    def count(self, what: str, times: int = 1) -> None:
        with self.lock:
            self.counts[what] += times

    def start_server(self) -> None:
        self.server = Server.start(
            self.folder / "model", self.folder / "live.db", self.folder / "log", ["service.room=200"], self.port
        )
        self.settled = time.monotonic()


class Client:
    """A connection that is made anew when it breaks, and asks again what was not answered."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=30)
        self._took = self._used = 0.0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer; None where the run is over before there is one."""
        while True:
            began = time.monotonic()
            if began - self._used > KEPT_SECONDS:
                self._connection.close()
            self._used = began
            try:
                content = None if body is None else json.dumps(body)
                self._connection.request(method, path, content, {"content-type": "application/json"})
                response = self._connection.getresponse()
                answer = response.read()
                self._took = time.monotonic() - began
                if response.status < 400:
                    return json.loads(answer)
                problem = f"{method} {path.split('?')[0]}: {response.status} {answer.decode()[:200]}"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                problem = f"{method} {path.split('?')[0]}: {error!r}"
            with self._run.lock:
                self._run.errors.append((began, time.monotonic(), problem))
            if self._run.is_over:
                return None
            time.sleep(0.1)

    def items(self, body: dict[str, Any]) -> list[str] | None:
        """Return the ids of a list, with nothing in it that was withdrawn before it was asked for."""
        began = time.monotonic()
        answer = self.ask("POST", "/v1/recommendations", body)
        if answer is None:
            return None
        found = [place["item_id"] for place in answer["items"]]
        with self._run.lock:
            self._run.seconds.append(self._took)
            gone = [item for item in found if self._run.withdrawn.get(item, began) < began]
        self._run.count("lists")
        if gone:
            self._run.fail(f"{gone} are in the list of {body} although they were withdrawn before")
        if len(set(found)) != len(found):
            self._run.fail(f"the list of {body} holds an item twice: {found}")
        return found


# What goes on at once


def write(run: Run, rng: random.Random) -> None:
    """Send events, remember which were acknowledged, and make sure that the next list knows them."""
    client = Client(run)
    while not run.is_over:
        batch = [_event(run, rng) for _ in range(EVENTS_AT_ONCE)]
        answer = client.ask("POST", "/v1/events", {"events": batch})
        if answer is None:
            return
        if answer != {"accepted": len(batch), "rejected": []}:
            run.fail(f"a batch of {len(batch)} events was answered with {answer}")
        with run.lock:
            run.acknowledged.update((event["event_id"], (_person(event), event["item_id"])) for event in batch)
        event = rng.choice(batch)
        who = {name: event[name] for name in ("user_id", "session_id") if name in event}
        found = client.items({**who, "k": 50, "include_seen": False})
        if found is not None and event["item_id"] in found:
            run.fail(f"{event['item_id']} is recommended to {who}, who has just taken it")
        time.sleep(WRITER_PAUSE)


def _event(run: Run, rng: random.Random) -> dict[str, Any]:
    who = (
        {"session_id": f"s{rng.randrange(SESSIONS)}"} if rng.random() < 0.2 else {"user_id": rng.choice(run.made.users)}
    )
    item = item_id(rng.randrange(run.num_items))
    return {"event_id": uuid.UUID(int=rng.getrandbits(128)).hex, **who, "item_id": item, "behavior": "view"}


def _person(event: dict[str, Any]) -> str:
    return event["user_id"] if "user_id" in event else f"session:{event['session_id']}"


def read(run: Run, rng: random.Random) -> None:
    """Ask for lists in every way there is."""
    client = Client(run)
    while not run.is_over:
        someone = {"user_id": rng.choice(run.made.users)}
        items = [item_id(rng.randrange(run.num_items)) for _ in range(20)]
        with run.lock:
            gone = rng.sample(list(run.withdrawn), min(3, len(run.withdrawn)))
        category = f"category {rng.randrange(CATEGORIES)}"
        filters: dict[str, Any] = rng.choice(
            [
                {"deny": items},
                {"allow": items + gone},
                {"pinned": items[:2] + gone},
                {"where": {"category": {"in": [category]}}},
                {"where": {"price": {"<": 50}}, "max_per": {"category": 2}},
                {"diversity": 0.5, "boosts": [{"weight": 3.0, "where": {"category": {"=": category}}}]},
            ]
        )
        body = rng.choice(
            [
                someone,
                someone,
                {"session_id": f"s{rng.randrange(SESSIONS)}"},
                {"history": items[: rng.randrange(20)]},
                {**someone, "explain": True},
                {**someone, "filters": filters},
            ]
        )
        found = client.items({**body, "k": 10})
        if found is not None and "filters" in body and _breaks(found, filters):
            run.fail(f"the list of {body} is {found}")
        time.sleep(READER_PAUSE)


def _breaks(found: list[str], filters: dict[str, Any]) -> bool:
    allowed = filters.get("allow")
    return bool(set(found) & set(filters.get("deny", ()))) or (allowed is not None and not set(found) <= set(allowed))


def change(run: Run, rng: random.Random) -> None:
    """Put new items, change old ones, and withdraw what was just recommended; most of it comes back later."""
    client = Client(run)
    while not run.is_over:
        rng.choice([_put_new, _change_old, _withdraw, _withdraw, _bring_back])(run, client, rng)
        time.sleep(CHANGER_PAUSE)


def _columns(rng: random.Random, title: str) -> dict[str, Any]:
    return {
        "title": title,
        "category": f"category {rng.randrange(CATEGORIES)}",
        "price": round(rng.uniform(1, 100), 2),
    }


def _put(run: Run, client: Client, rng: random.Random, item: str, title: str) -> None:
    with run.lock:
        run.withdrawn.pop(item, None)
    if client.ask("PUT", f"/v1/items/{item}", _columns(rng, title)) is None:
        return
    run.count("items put")
    began = time.monotonic()
    while client.items({"history": [item_id(0)], "filters": {"allow": [item]}, "k": 1}) == []:
        if time.monotonic() - began > PLACED_SECONDS and not _was_down(run, began, time.monotonic()):
            run.fail(f"{item} is not shown {PLACED_SECONDS} s after it was put")
            return
        if run.is_over:
            return
        time.sleep(0.02)
    with run.lock:
        run.placed_seconds.append(time.monotonic() - began)


def _put_new(run: Run, client: Client, rng: random.Random) -> None:
    number = rng.randrange(NEW_ITEMS)
    _put(run, client, rng, f"new-{number}", f"New item {number} of {rng.randrange(1_000_000)}")


def _change_old(run: Run, client: Client, rng: random.Random) -> None:
    number = 1 + rng.randrange(run.num_items - 1)
    _put(run, client, rng, item_id(number), f"Title of item {number}, edition {rng.randrange(1_000_000)}")


def _withdraw(run: Run, client: Client, rng: random.Random) -> None:
    someone = {"user_id": rng.choice(run.made.users), "k": 5}
    item = (client.items(someone) or [""])[0]
    if not item or item == item_id(0) or client.ask("DELETE", f"/v1/items/{item}") is None:
        return
    with run.lock:
        run.withdrawn[item] = time.monotonic()
    run.count("items withdrawn")
    client.items(someone)  # sees whether it is gone


def _bring_back(run: Run, client: Client, rng: random.Random) -> None:
    with run.lock:
        gone = list(run.withdrawn)
    for item in rng.sample(gone, min(3, len(gone))):
        _put(run, client, rng, item, f"{item} again")


def swap(run: Run, rng: random.Random, pause: float) -> None:
    """Put new versions of the model into service: in the place of the folder, and by announcing another folder."""
    client = Client(run)
    folders = [run.folder / "model", run.folder / "other"]
    torch.set_num_threads(1)
    number = 0
    while _wait(run, pause):
        number += 1
        if number % 2 == 0:
            folders.reverse()
        recommender = Recommender.load(run.folder / "base")
        recommender.run = replace(recommender.run, warnings=[f"not trained, version {number}"])
        with torch.no_grad():
            ids = recommender.model.towers[0].items.ids.weight
            ids[1:] += 0.01 * torch.randn_like(ids[1:])
        recommender.save(folders[0])
        wanted = file_digest(folders[0] / CHECKSUMS)[:12]
        began = time.monotonic()
        if number % 2 == 0:
            client.ask("POST", "/v1/models", {"name": "default", "path": str(folders[0])})
        while (ready := client.ask("GET", "/readyz")) is not None and ready["version"] != wanted:
            if time.monotonic() - began > SWAP_SECONDS and not _was_down(run, began, time.monotonic()):
                run.fail(f"model {wanted} is not in service after {SWAP_SECONDS} s, but {ready['version']}")
                break
            time.sleep(0.1)
        else:
            if ready is not None:
                run.swap_seconds.append(time.monotonic() - began)
                run.count("models swapped in place" if number % 2 else "models announced")


def supervise(run: Run, until: float, pause: float) -> None:
    """Keep the service running; kill it some times, then leave it in peace."""
    next_kill = time.monotonic() + pause
    while _wait(run, SUPERVISOR_SECONDS):
        assert run.server is not None
        now = time.monotonic()
        if run.server.process.poll() is not None:
            run.fail(f"the service ended by itself, with the code {run.server.process.returncode}")
            run.start_server()
        elif next_kill <= now < until and len(run.outages) < MOST_KILLS:
            with run.lock:
                run.outages.append((now, math.inf))
            run.server.kill()
            run.start_server()
            with run.lock:
                run.outages[-1] = now, time.monotonic()
            next_kill = time.monotonic() + pause


def sample_memory(run: Run) -> None:
    """Note now and then how much memory the service holds."""
    while _wait(run, SAMPLE_SECONDS):
        try:
            assert run.server is not None
            run.memory.append((time.monotonic(), run.server.memory_bytes()))
        except OSError:
            continue  # it has been killed, and is not there again yet


def _wait(run: Run, seconds: float) -> bool:
    """Wait, and say whether the run goes on."""
    time.sleep(max(0.0, min(seconds, run.ends - time.monotonic())))
    return not run.is_over


def _was_down(run: Run, began: float, ended: float) -> bool:
    """Whether a time touches an outage."""
    with run.lock:
        return any(down - GRACE_SECONDS <= ended and began <= up + GRACE_SECONDS for down, up in run.outages)


# What came of it


def check_events(run: Run) -> None:
    """Make sure that every acknowledged event is there once, as it was sent."""
    with closing(sqlite3.connect(run.folder / "live.db")) as database:
        if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            run.fail("the database is damaged")
        rows = database.execute("SELECT event_id, user_id, item_id FROM events").fetchall()
    stored, times = {id_: (who, item) for id_, who, item in rows}, Counter(id_ for id_, *_ in rows)
    lost = sum(stored.get(id_) != event for id_, event in run.acknowledged.items())
    if lost or (rows and max(times.values()) > 1):
        run.fail(f"{lost} acknowledged events are not as they were sent, {len(rows) - len(times)} are there twice")
    run.counts["events acknowledged"], run.counts["events stored"] = len(run.acknowledged), len(rows)


def check_errors(run: Run) -> None:
    """Make sure that whatever failed did so because the service had been killed."""
    unexpected = [problem for began, ended, problem in run.errors if not _was_down(run, began, ended)]
    run.counts["errors while it was down, tried again"] = len(run.errors) - len(unexpected)
    run.counts["other errors"] = len(unexpected)
    for problem, times in Counter(unexpected).most_common(5):
        run.fail(f"{times} times: {problem}")


def check_memory(run: Run, since: float) -> list[str]:
    """Judge the memory of the time without kills, and describe it."""
    samples = np.array([(moment, size) for moment, size in run.memory if moment >= since])
    if len(samples) < 6:
        return ["memory: the run was too short to judge it"]
    third = len(samples) // 3
    first, last = np.median(samples[:third, 1]) / 1e6, np.median(samples[-third:, 1]) / 1e6
    hours = (samples[:, 0] - samples[0, 0]) / 3_600
    slope = np.polyfit(hours, samples[:, 1] / 1e6, 1)[0]
    if last > (1 + MOST_GROWTH) * first:
        run.fail(f"memory grew from {first:,.0f} to {last:,.0f} MB")
    return [
        f"memory over {60 * hours[-1]:.1f} minutes without a kill: median of the first third {first:,.0f} MB, of the"
        f" last third {last:,.0f} MB, most {samples[:, 1].max() / 1e6:,.0f} MB, slope {slope:+,.1f} MB an hour"
    ]


def report(run: Run, memory: list[str], minutes: float) -> str:
    """Return what happened, as Markdown."""
    lines = [f"{minutes:g} minutes, {run.num_items:,} items, {WRITERS} writers, {READERS} readers", ""]
    lines += ["| what | how often |", "| --- | --- |"]
    lines += [f"| {what} | {times:,} |" for what, times in sorted(run.counts.items())]
    lines += [f"| kills | {len(run.outages):,} |", ""]
    for what, values in (
        ("ms a list, to clients that share one process", [1e3 * value for value in run.seconds]),
        ("s from a put to being shown", run.placed_seconds),
        ("s from a new model to its service", run.swap_seconds),
        ("s from a kill to being ready again", [up - down for down, up in run.outages]),
    ):
        if values:
            p50, p99 = np.percentile(values, [50, 99])
            lines.append(f"- {what}: median {p50:.2f}, p99 {p99:.2f}, most {max(values):.2f}")
    lines += [f"- {line}" for line in memory]
    lines += ["", *(f"FAILED: {what}" for what in run.failures[:20]), f"{len(run.failures)} failures", ""]
    return "\n".join([*lines, f"{versions()} {hardware()}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the report, beside printing it")
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), 60 * options.minutes
        made = make_model(folder / "model", options.items, options.seed)
        shutil.copytree(folder / "model", folder / "base")
        run = Run(made, folder, options.items, ends=time.monotonic() + seconds)
        try:
            run.start_server()
            began = time.monotonic()
            run.ends = began + seconds
            _run_all(run, began, seconds, options.seed)
        finally:
            if run.server is not None:
                run.server.stop()
        check_events(run)
        check_errors(run)
        # The caches of a service that has just started are empty.
        memory = check_memory(run, run.settled + seconds / 10)
        if run.failures and run.server is not None:
            print((folder / "log").read_text()[-3_000:], file=sys.stderr)
    text = report(run, memory, options.minutes)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if run.failures else 0


def _run_all(run: Run, began: float, seconds: float, seed: int) -> None:
    """Do everything at once until the time is over."""
    jobs: list[Callable[[], None]] = [lambda: sample_memory(run)]
    jobs.append(lambda: supervise(run, began + seconds / 3, max(8.0, seconds / 3 / (MOST_KILLS + 1))))
    jobs.append(lambda: swap(run, random.Random(f"{seed} swap"), max(8.0, seconds / 40)))
    jobs.append(lambda: change(run, random.Random(f"{seed} change")))
    jobs += [partial(write, run, random.Random(f"{seed} write {n}")) for n in range(WRITERS)]
    jobs += [partial(read, run, random.Random(f"{seed} read {n}")) for n in range(READERS)]

    def whole(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            run.fail(f"the benchmark itself failed:\n{traceback.format_exc()}")

    threads = [threading.Thread(target=whole, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        run.ends = 0.0  # interrupted: nobody starts another service
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
