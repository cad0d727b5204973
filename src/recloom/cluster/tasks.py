"""A function and what to call it on -> what it returned each time, done by Ray Data on the machines of a cluster."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from recloom.errors import RecloomError

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def spread(
    jobs: Sequence[Job],
    function: Callable[..., Result],
    arguments: Sequence[Any] = (),
    *,
    loaded: Callable[..., Any] | None = None,
    workers: int | None = None,
    gpus: float = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Result]]:
    """Call a function on each job somewhere in the cluster; Ray Data streams, and repeats what a lost worker was at.

    Args:
        jobs: What to do; there may be many, each is small.
        function: Called with a job and the arguments; with what `loaded` returned between them where that is given.
        arguments: What is the same for all jobs.
        loaded: Called with the arguments once in each worker, for what takes long to load: a model.
        workers: Processes that are loaded. None: as many as there is work and room for, and more as nodes join.
        gpus: Of a GPU for each of them.
        progress: Told how many jobs are done, and of how many.

    Yields:
        The place of a job and its result, in the order in which they are done.

    Raises:
        RecloomError, OSError: What the function raised, from the first job that failed.
    """
    import ray
    from ray.data import ActorPoolStrategy

    if not jobs:
        return
    # As bytes, because Ray Data would take objects apart into columns.
    rows = [{"place": place, "job": pickle.dumps(job)} for place, job in enumerate(jobs)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    if loaded is None:
        shared = ray.put(tuple(arguments))
        done = data.map(_call_once, fn_kwargs={"function": function, "arguments": shared}, num_cpus=1)
    else:
        have = ray.cluster_resources()
        places = have.get("GPU", 0) / gpus if gpus else have.get("CPU", 1) - 1  # the rest reads jobs
        # A cluster may grow while it is worked on, and may have had no worker at all when it began.
        most = min(workers or len(rows), len(rows))
        done = data.map(
            _Loaded,
            fn_constructor_kwargs={"function": function, "loaded": loaded, "arguments": tuple(arguments)},
            compute=ActorPoolStrategy(min_size=min(workers or max(1, int(places)), most), max_size=most),
            num_cpus=1,
            num_gpus=gpus,
        )
    for number, row in enumerate(done.iter_rows(), start=1):
        outcome = pickle.loads(row["outcome"])
        if row["is_error"]:
            raise outcome
        if progress:
            progress(number, len(jobs))
        yield int(row["place"]), outcome


def _answered(row: dict[str, Any], call: Callable[[Any], Any]) -> dict[str, Any]:
    # An error that travels as a result keeps its own words; Ray would wrap it in a traceback and repeat the job.
    outcome, is_error = None, False
    try:
        outcome = call(pickle.loads(row["job"]))
    except (RecloomError, OSError) as error:
        outcome, is_error = error, True
    return {"place": row["place"], "outcome": pickle.dumps(outcome), "is_error": is_error}


def _call_once(row: dict[str, Any], function: Callable[..., Any], arguments: Any) -> dict[str, Any]:
    import ray

    known = ray.get(arguments)
    return _answered(row, lambda job: function(job, *known))


class _Loaded:
    """A worker that has loaded what its jobs need."""

    def __init__(self, function: Callable[..., Any], loaded: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function, self._arguments = function, arguments
        self._error: RecloomError | OSError | None = None
        try:
            self._held = loaded(*arguments)
        except (RecloomError, OSError) as error:  # Ray would start the worker again and again
            self._error = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _answered(row, self._call)

    def _call(self, job: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._function(job, self._held, *self._arguments)
