"""Settings to try -> trials side by side on a Ray cluster, kept in the study that trials on one machine are kept in."""

import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from recloom.cluster.connection import explained
from recloom.errors import TrainingError
from recloom.training import Epoch

WHOLE = "whole"
"""In what a trial reports: whether it is what the trial reached in the end."""
BROKE_DOWN = "broke_down"
"""In what a trial reports: that its settings cannot be trained with, which is no reason to try nothing else."""
MOST_FAILURES = 2
"""Losses of a worker after which a trial is given up."""


def try_on_ray(
    value_of: Callable[..., float],
    suggest: Callable[[optuna.Trial], dict[str, Any]],
    study_name: str,
    storage: optuna.storages.BaseStorage,
    num_trials: int,
    *,
    budget: float | None,
    seed: int,
    metric: str,
    warm: tuple[int, int],
) -> None:
    """Try settings with Ray Tune, as many at a time as the cluster has CPUs, or GPUs if it has any.

    Trials whose epochs fall behind the median of the others are cut short, as on one machine.

    Args:
        value_of: From options, and who is told of each epoch, to what they reach. It travels to the workers.
        suggest: Chooses the options of a trial.
        study_name: The study that takes the trials, and goes on from those it holds.
        storage: Where it is kept.
        num_trials: How many to try.
        budget: Most seconds; trials that have not ended then are cut short.
        seed: Decides what is tried first.
        metric: What the value is called.
        warm: So many trials are not cut short, nor are so many epochs.

    Raises:
        RecloomError: A trial failed otherwise than by breaking down in training; the others are kept.
    """
    import ray
    from ray import tune
    from ray.tune.schedulers import MedianStoppingRule
    from ray.tune.search.optuna import OptunaSearch

    class Search(OptunaSearch):  # type: ignore[misc]
        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            # What a trial had reached when it was cut short is not what its settings reach.
            told = result or {}
            broke_down = bool(told.get(BROKE_DOWN))
            super().on_trial_complete(trial_id, told if told.get(WHOLE) else None, error or broke_down)

    def trial(options: dict[str, Any], value_of: Callable[..., float]) -> None:
        def report(epoch: Epoch) -> None:
            if epoch.validation is not None:
                tune.report({metric: epoch.validation, WHOLE: False})

        try:
            reached = {metric: value_of(options, report), WHOLE: True}
        except TrainingError:
            reached = {metric: 0.0, WHOLE: False, BROKE_DOWN: True}
        tune.report(reached)

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    search = Search(
        suggest,
        metric=metric,
        mode="max",
        study_name=study_name,
        storage=storage,
        # Of trials that run side by side none knows how the others end: the sampler assumes that they end badly.
        sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=8, constant_liar=True),
    )
    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    with TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trial, value_of=value_of), {"cpu": 1, "gpu": 1} if has_gpu else {"cpu": 1}
            ),
            tune_config=tune.TuneConfig(
                metric=metric,
                mode="max",
                search_alg=search,
                scheduler=MedianStoppingRule(
                    time_attr="training_iteration", grace_period=warm[1], min_samples_required=warm[0]
                ),
                num_samples=num_trials,
                time_budget_s=budget,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="trials",
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MOST_FAILURES),
            ),
        )
        for error in tuner.fit().errors:
            raise explained(error) from None
