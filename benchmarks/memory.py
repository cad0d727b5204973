"""How much memory fitting and serving take at most: the table of benchmarks/memory.md.

    python benchmarks/memory.py DATASET [DATASET ...] [--profile small] [--set training.epochs=2 ...]

Of each dataset a copy without embeddings is fitted, so that the language model reads all of its texts, and what came of
it is served and asked. A process is measured by the system, from its first line to its last: the peak of its resident
memory (Linux).
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from recloom import Dataset
from recloom.training import hardware, versions

ASKED = 500
"""Lists that the service is asked for, and events that it is told."""
PATIENCE_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--profile", help="of recloom fit; unset: the default settings")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="passed on to recloom fit")
    options = parser.parse_args()
    print("| dataset | profile | fit, MB | processor seconds | validation NDCG@10 | serve, MB |")
    print("|---|---|---|---|---|---|")
    for dataset in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            copy, model = Path(folder) / "dataset", Path(folder) / "model"
            copy.mkdir()
            shutil.copy(dataset / "dataset.h5", copy)
            words = ["fit", copy, "--out", model, "--protocol", "leave-one-out"]
            words += ["--profile", options.profile] if options.profile else []
            peak, seconds = measured([*words, *(word for one in options.settings for word in ("--set", one))])
            ndcg = json.loads((model / "metrics.json").read_text())["validation_ndcg_at_10"]
            served = peak_of_service(model, Dataset.open(dataset).users.ids)
        name = options.profile or "none"
        print(f"| {dataset.name} | {name} | {peak:.0f} | {seconds:.0f} | {ndcg:.4f} | {served:.0f} |", flush=True)
    print(f"\n{versions()}\n{hardware()}")


def measured(words) -> tuple[float, float]:
    """Run a command to its end; return its peak of memory in MB and its processor time in seconds."""
    with subprocess.Popen([sys.executable, "-m", "recloom", *map(str, words)], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"recloom {words[0]} failed")
    return usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime


def peak_of_service(model: Path, users: list[str]) -> float:
    """Serve a model, tell and ask it something, and return the service's peak of memory in MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recloom", "serve", model, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            wait_until_ready(service, port)
            new = {"title": "a thing that came later", "item_id": "new"}
            call("PUT", port, "/v1/items/new", new)  # the language model has to be there to read it
            for number in range(ASKED):
                user = users[number * len(users) // ASKED]
                told = {"events": [{"user_id": user, "item_id": "new", "timestamp": int(time.time())}]}
                call("POST", port, "/v1/events", told)
                answer = call("POST", port, "/v1/recommendations", {"user_id": user, "k": 10})
                assert len(answer["items"]) == 10
            status = Path(f"/proc/{service.pid}/status").read_text()
        finally:
            service.terminate()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))


def wait_until_ready(service, port: int) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and service.poll() is None:
        try:
            call("GET", port, "/readyz")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    sys.exit("the service did not become ready")


def call(method: str, port: int, path: str, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read() or b"null")


if __name__ == "__main__":
    main()
