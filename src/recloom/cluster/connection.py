"""An address -> a Ray cluster that this program is part of for a while, or one sentence on why not."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import recloom
from recloom.errors import ConfigError, MissingExtraError, RecloomError
from recloom.version import __version__

NEAREST = "auto"
"""The cluster that `RAY_ADDRESS` names, else one that runs on this machine, else a new one on this machine."""
LOCAL = "local"
"""A new cluster on this machine, whatever else there is."""
SECONDS_TO_ANSWER = 10.0
SECONDS_TO_CHECK = 90.0
"""How long asking whether it is a head node may take, which starts a process."""
SECONDS_TO_LOOK = 60.0
"""How long a node may take to say which recloom it has: it starts a process and imports everything."""
SECONDS_BETWEEN_LOOKS = 5.0
MISSED_LOOKS = 3
SECONDS_TO_END = 2.0
"""How long the processes of a node take to end, one after the other."""
ATTEMPTS_TO_START = 6
SPARE_CPUS = 2
"""A new cluster says it has so many CPUs more than there are: those who only wait for others take one too."""
STORE_BYTES = 2**30
"""Object store of a new cluster. What goes through it are descriptions of work and blocks of vectors, not the log."""

Started = TypeVar("Started")
_HOST_AND_PORT = re.compile(r"(\[[\da-fA-F:]+\]|[\w.-]+):(\d{1,5})")


@dataclass(frozen=True)
class Joined:
    """The cluster that was joined or started."""

    address: str
    nodes: int
    cpus: int
    is_new: bool

    def __str__(self) -> str:
        how = "started on this machine" if self.is_new else f"at {self.address}"
        return f"Ray cluster {how}: {self.nodes} node{'s' * (self.nodes > 1)}, {self.cpus} CPUs"


@contextmanager
def connected(address: str) -> Iterator[Joined]:
    """Be part of a cluster while the block runs.

    What Ray raises in the block comes out as one sentence. Where the head node is lost, Ray would wait and then end the
    process: this says so and ends it with exit code 1. A program that is connected already stays so.

    Args:
        address: HOST:PORT of the head node, `NEAREST` or `LOCAL`.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: The address is not understood, or a node has another recloom.
        RecloomError: Nothing answers, or the cluster failed while the block ran.
    """
    ray = import_ray()
    was_connected = ray.is_initialized()
    is_new = False if was_connected else _join(ray, address)
    head = ray.get_runtime_context().gcs_address
    stop = threading.Event()
    try:
        threading.Thread(target=watch, args=(head, stop), daemon=True).start()
        yield _look(ray, is_new)
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        time.sleep(SECONDS_TO_END)  # who waits for a worker on the head node may hear of its end first
        raise (explained(error) if _answers(head) else _lost(head)) from None
    finally:
        stop.set()
        if not was_connected:
            ray.shutdown()


def import_ray() -> Any:
    """Import Ray, quiet and patient.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # has to be said before Ray is imported
    # What is started from here may take minutes on a busy machine.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what will change
    try:
        import ray
        import ray.data.exceptions
    except ImportError:
        raise MissingExtraError("ray", "--ray") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told in one sentence, by `connected`
    # Tracebacks that nodes send to whoever is connected, log_to_driver or not.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray


def _join(ray: Any, address: str) -> bool:
    """Join the cluster at an address; return whether it had to be started."""
    address = os.environ.get("RAY_ADDRESS", NEAREST) if address == NEAREST else address
    if address not in (NEAREST, LOCAL):
        _check_answers(address)
    if address != LOCAL:
        try:
            environment = {"env_vars": worker_variables()}
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
            return False
        except ConnectionError:
            if address != NEAREST:
                raise RecloomError(
                    f"this machine is no node of the Ray cluster at {address}; run the command on one of its nodes, or"
                    f" make this machine one with: ray start --address={address}"
                ) from None
        except Exception as error:  # Ray raises what its parts raise, of many families
            raise RecloomError(
                f"the Ray cluster at {address} cannot be joined ({_first_line(error)}); look at it with: ray status"
                f" --address={address}"
            ) from None
    before = dict(os.environ)
    # Processes that are started inherit them, which is quicker than to prepare an environment for each.
    os.environ.update(worker_variables())
    options = {
        "num_cpus": (os.cpu_count() or 1) + SPARE_CPUS,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    try:
        patiently(lambda: ray.init(address=LOCAL, **options))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return True


def patiently(start: Callable[[], Started]) -> Started:
    """Start a node, again where it is slow: Ray gives up after half a minute, and a busy machine may need more.

    Raises:
        RecloomError: It did not start.
    """
    for attempt in range(ATTEMPTS_TO_START):
        try:
            return start()
        except Exception as error:  # Ray raises what its parts raise, of many families
            failed = error
            if "timed out" not in str(error) or attempt + 1 == ATTEMPTS_TO_START:
                break
    raise RecloomError(
        f"a Ray cluster could not be started on this machine ({_first_line(failed)}); look into"
        " /tmp/ray/session_latest/logs"
    )


def worker_variables() -> dict[str, str]:
    """Return the environment of workers, in which they find this very package and each keeps to its own CPU."""
    here = str(Path(recloom.__file__).parent.parent)
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    variables = {"POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")}
    variables["OMP_WAIT_POLICY"] = "PASSIVE"  # as recloom sets it, but Ray Train imports torch before recloom
    # Installed packages are found without help, and a path before them could hide others.
    return variables if "site-packages" in here else variables | {"PYTHONPATH": os.pathsep.join(paths)}


def _check_answers(address: str) -> None:
    match = _HOST_AND_PORT.fullmatch(address)
    if not match:
        raise ConfigError(
            f"the Ray address {address!r} is not understood; write HOST:PORT of the head node, {NEAREST} or {LOCAL}"
        )
    try:
        _knock(match[1].strip("[]"), int(match[2]))
        # Ray itself waits for minutes where something listens that is no head node.
        health_check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        subprocess.run(health_check, timeout=SECONDS_TO_CHECK, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        is_silent = isinstance(error, TimeoutError)  # of the knock; what listens and is no head node ends otherwise
        other = "nothing answers" if is_silent else "what listens there is no head node of this version of Ray"
        what = getattr(error, "strerror", None) or other
        raise RecloomError(
            f"no Ray cluster answers at {address} ({what}; waited {SECONDS_TO_CHECK:.0f} s at most); check the"
            " address, and on the head node: ray status"
        ) from None


def _knock(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=SECONDS_TO_ANSWER).close()


def _look(ray: Any, is_new: bool) -> Joined:
    """Make sure that every node runs this recloom."""

    def version_there() -> str:  # defined here, so that it travels as code: a node may have no recloom
        import runpy
        from importlib.util import find_spec
        from pathlib import Path

        spec = find_spec("recloom")  # not imported, which would take seconds
        if spec is None or spec.origin is None:
            return "no recloom"
        return f"recloom {runpy.run_path(str(Path(spec.origin).with_name('version.py')))['__version__']}"

    nodes = [node for node in ray.nodes() if node["Alive"]]
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0)(version_there)
    answers = [ask.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote() for node in nodes]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            found = ray.get(answer, timeout=SECONDS_TO_LOOK)
        except ray.exceptions.GetTimeoutError:
            raise RecloomError(
                f"the node {node['NodeManagerAddress']} of the Ray cluster started no worker within"
                f" {SECONDS_TO_LOOK:.0f} s; look at it with: ray status"
            ) from None
        if found != f"recloom {__version__}":
            raise ConfigError(
                f"the node {node['NodeManagerAddress']} of the Ray cluster has {found}, and this is recloom"
                f" {__version__}; install the same one on all nodes"
            )
    cpus = int(sum(node["Resources"].get("CPU", 0) for node in nodes))
    return Joined(ray.get_runtime_context().gcs_address, len(nodes), cpus, is_new)


def watch(address: str, stop: threading.Event) -> None:
    """End the process when the head node has not answered several times."""
    missed = 0
    while missed < MISSED_LOOKS:
        if stop.wait(SECONDS_BETWEEN_LOOKS):
            return
        missed = 0 if _answers(address) else missed + 1
    print(f"recloom: {_lost(address)}", file=sys.stderr, flush=True)
    os._exit(1)  # every other thread may be inside Ray, which waits for the head node


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _knock(host.strip("[]"), int(port))
    except OSError:
        return False
    return True


def _lost(address: str) -> RecloomError:
    return RecloomError(
        f"the head node of the Ray cluster at {address} is lost; what was finished is kept, start the cluster and give"
        " the same command again"
    )


def explained(error: BaseException) -> RecloomError:
    """Return what went wrong as one sentence: recloom's own where a worker raised it."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__ or seen.__context__
    for one in chain:
        # Ray gives what a worker raised a class of both families, whose text is a traceback.
        if isinstance(one, RecloomError) and not hasattr(one, "cause"):
            return one
    names = {type(one).__name__ for one in chain}
    # Of what a worker raised, Ray often keeps no more than the traceback, as text.
    told = "\n".join([*names, *map(str, chain)])
    again = "; what was finished is kept: give the same command again"
    if "ObjectStoreFullError" in told or "OutOfDiskError" in told:
        return RecloomError(
            f"the object store of the Ray cluster is full and so is the disk it spills to{again} with more room"
            " (ray start --object-store-memory, or space under /tmp/ray)"
        )
    if "OutOfMemoryError" in names:
        return RecloomError(f"a node of the Ray cluster ran out of memory{again} with more memory or fewer CPUs a node")
    raised, is_traceback, _ = told.partition("\n\nThe above exception was the direct cause")
    what = raised.splitlines()[-1] if is_traceback else _first_line(next(filter(str, reversed(chain)), error))
    return RecloomError(f"the Ray cluster failed ({what}){again}")


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
