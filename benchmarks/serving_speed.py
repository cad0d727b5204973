"""How many recommendations and events a service answers a second, and how soon.

    python benchmarks/serving_speed.py [--items 10000,100000,1000000] [--connections 1,8,64] [--seconds 10]

Starts `recloom serve` over an untrained model (serving_models.py says why that is as good) with an empty SQLite
database, and loads it over the loopback interface from another process: `wrk` where it is installed, else one of our
own. Each connection sends its next request when the last one is answered. Client and service share the machine, so a
service alone does better. Before each measurement a list is compared with the library's.
"""

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
from serving_models import ASKED_AT, Made, Server, clean_up_when_told_to_stop, item_id, make_model

from recloom.training import hardware, versions

WARM_UP_SECONDS = 2
EVENTS_AT_ONCE = 50
EVENT_CONNECTIONS = 4
LEAST_SHARED = 7
"""Items of ten that an approximate list has to share with the exact one."""
SEARCHES = {"exact": "service.approximate_from=1000000000", "approximate": "service.approximate_from=1"}
WRK = """
math.randomseed(os.time())
local users, made = {}, 0
for user in io.lines("USERS") do users[#users + 1] = user end
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"

local function recommendations()
  return wrk.format(nil, nil, nil, string.format('{"user_id": "%s", "k": 10}', users[math.random(#users)]))
end

local function events()
  local batch = {}
  for place = 1, EVENTS do
    made = made + 1
    batch[place] = string.format('{"event_id": "PREFIX-%d", "user_id": "%s", "item_id": "item-%d"}',
                                 made, users[math.random(#users)], math.random(ITEMS) - 1)
  end
  return wrk.format(nil, nil, nil, '{"events": [' .. table.concat(batch, ",") .. ']}')
end

request = KIND

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p95": %f, "p99": %f, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=_numbers, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--connections", type=_numbers, default=[1, 8, 64])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--search", type=lambda text: text.split(","), default=list(SEARCHES))
    parser.add_argument("--client", choices=("wrk", "python"), default="wrk" if shutil.which("wrk") else "python")
    parser.add_argument("--out", type=Path, help="file for the tables, beside printing them")
    parser.add_argument("--load", help=argparse.SUPPRESS)  # what the load process is started with
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    if options.load:
        print(json.dumps(asyncio.run(_python_load(**json.loads(options.load)))))
        return
    if unknown := set(options.search) - set(SEARCHES):
        parser.error(f"unknown search {min(unknown)!r}; there are: {', '.join(SEARCHES)}")
    lists, events, servers = [], [], []
    for num_items in options.items:
        with tempfile.TemporaryDirectory() as folder:
            made = make_model(Path(folder) / "model", num_items)
            for search in options.search:
                some, event, server = _measure(Path(folder), made, num_items, search, options)
                lists += some
                events.append(event)
                servers.append(server)
    loaded_by = "wrk" if options.client == "wrk" else "a Python process"
    report = "\n".join(
        [
            _table("items, search, index recall, connections, requests/s, p50 ms, p95 ms, p99 ms, errors", lists),
            _table("items, search, events/s, p50 ms, p95 ms, p99 ms, errors", events),
            _table("items, search, ready after s, memory at the start MB, after the load MB", servers),
            f"Lists of 10. Events in batches of {EVENTS_AT_ONCE} over {EVENT_CONNECTIONS} connections, acknowledged"
            f" when they are on disk. {options.seconds} s each after {WARM_UP_SECONDS} s to warm up, by {loaded_by} on"
            f" the same machine.\n{versions()} {hardware()}\n",
        ]
    )
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _measure(
    folder: Path, made: Made, num_items: int, search: str, options: argparse.Namespace
) -> tuple[list[list[str]], list[str], list[str]]:
    """Return the rows of one service: of lists, of events, and of the service itself."""
    database = folder / f"{search}.db"
    server = Server.start(folder / "model", database, folder / f"{search}.log", [SEARCHES[search]])
    what = [f"{num_items:,}", search]
    try:
        facts = server.call("GET", "/v1/models")["models"][0]
        if facts["search"] != search:
            raise SystemExit(f"wanted {search} search, and the service searches {facts['search']}")
        at_first = server.memory_bytes()
        recall = "" if facts["index_recall"] is None else f"{facts['index_recall']:.3f}"
        lists = []
        for connections in options.connections:
            _check(server, made, search)
            load = _Load(server, made, num_items, folder, "recommendations", options.client)
            load.run(connections, WARM_UP_SECONDS)
            found = load.run(connections, options.seconds)
            lists.append(
                [*what, recall, str(connections), f"{found['requests'] / found['seconds']:,.0f}", *_times(found)]
            )
        load = _Load(server, made, num_items, folder, "events", options.client)
        acknowledged = load.run(EVENT_CONNECTIONS, WARM_UP_SECONDS)["requests"]
        found = load.run(EVENT_CONNECTIONS, options.seconds)
        acknowledged += found["requests"]
        with closing(sqlite3.connect(database)) as tables:
            stored = tables.execute("SELECT count(*) FROM events").fetchone()[0]
        if stored < EVENTS_AT_ONCE * acknowledged - EVENTS_AT_ONCE * found["errors"]:
            raise SystemExit(f"{stored:,} events are on disk, of {acknowledged:,} batches that were answered")
        events = [*what, f"{EVENTS_AT_ONCE * found['requests'] / found['seconds']:,.0f}", *_times(found)]
        memory = [f"{size / 1e6:,.0f}" for size in (at_first, server.memory_bytes())]
        return lists, events, [*what, f"{server.start_seconds:.1f}", *memory]
    finally:
        server.stop()


def _times(found: dict[str, float]) -> list[str]:
    return [*(f"{found[name]:.1f}" for name in ("p50", "p95", "p99")), f"{found['errors']:.0f}"]


def _check(server: Server, made: Made, search: str) -> None:
    """Make sure that the service answers what the library does, as far as its search promises."""
    body = {"user_id": made.asked, "k": len(made.expected), "context": {"timestamp": ASKED_AT}}
    answer = server.call("POST", "/v1/recommendations", body)
    found = [place["item_id"] for place in answer["items"]]
    is_right = found == made.expected if search == "exact" else len(set(found) & set(made.expected)) >= LEAST_SHARED
    if not is_right or answer["served_by"] != "weave":
        raise SystemExit(f"the service answered {answer['served_by']} {found}, the library {made.expected}")


def _table(head: str, rows: list[list[str]]) -> str:
    names = head.split(", ")
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


class _Load:
    """A process that asks a service as fast as it answers."""

    def __init__(self, server: Server, made: Made, num_items: int, folder: Path, kind: str, client: str) -> None:
        self._port, self._num_items, self._kind, self._client = server.port, num_items, kind, client
        self._url = f"{server.address}/v1/{kind}"
        self._users, self._script = folder / "users.txt", folder / "load.lua"
        self._users.write_text("\n".join(made.users))

    def run(self, connections: int, seconds: int) -> dict[str, float]:
        """Return the number of requests, the seconds, percentiles in milliseconds, and the errors of any kind."""
        if self._client == "wrk":
            script = WRK.replace("USERS", str(self._users)).replace("EVENTS", str(EVENTS_AT_ONCE))
            script = script.replace("ITEMS", str(self._num_items)).replace("PREFIX", uuid.uuid4().hex)
            self._script.write_text(script.replace("KIND", self._kind))
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(self._script)]
            command.append(self._url)
        else:
            load = {"port": self._port, "kind": self._kind, "users": str(self._users), "num_items": self._num_items}
            load |= {"connections": connections, "seconds": seconds}
            command = [sys.executable, __file__, "--load", json.dumps(load)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
        found: dict[str, float] = json.loads(output[output.rindex("{") :])
        return found


async def _python_load(
    port: int, kind: str, users: str, num_items: int, connections: int, seconds: int
) -> dict[str, float]:
    """Do what `wrk` does, slower: measure with it only where there is no other."""
    names = Path(users).read_text().split("\n")
    took: list[float] = []
    errors = 0
    until = time.perf_counter() + seconds

    def body() -> bytes:
        if kind == "recommendations":
            return json.dumps({"user_id": random.choice(names), "k": 10}).encode()
        return json.dumps({"events": [event() for _ in range(EVENTS_AT_ONCE)]}).encode()

    def event() -> dict[str, str]:
        item = item_id(random.randrange(num_items))
        return {"event_id": uuid.uuid4().hex, "user_id": random.choice(names), "item_id": item}

    async def one_connection() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/{kind} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
        while (began := time.perf_counter()) < until:
            content = body()
            writer.write(f"{head}{len(content)}\r\n\r\n".encode() + content)
            status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
            length = next(line.split(":")[1] for line in headers if line.startswith("content-length:"))
            await reader.readexactly(int(length))
            errors += not status.split()[1].startswith("2")
            took.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one_connection() for _ in range(connections)))
    p50, p95, p99 = np.percentile(1e3 * np.array(took), [50, 95, 99]).tolist()
    lasted = time.perf_counter() - began
    return {"requests": len(took), "seconds": lasted, "p50": p50, "p95": p95, "p99": p99, "errors": errors}


if __name__ == "__main__":
    main()
