"""The versions of a model -> runs of an MLflow experiment, for those who keep their runs there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from recloom.config import read_run_file
from recloom.errors import ConfigError, MissingExtraError
from recloom.files import CHECKSUMS, current_folder, file_digest
from recloom.lifecycle.versions import model_folders
from recloom.recommender import read_record
from recloom.training import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("config.toml", "metrics.json", CHECKSUMS)
"""What of a model is handed over. The rest holds what people did, and stays where `recloom forget` reaches it."""


def export_mlflow(model: Path, tracking_uri: str) -> list[str]:
    """Log each version of a model as a run of an experiment that is called as its folder is.

    A version's settings become parameters, its figures metrics, where it came from tags. What is there already is
    left alone, but for the tag that says which version is current.

    Args:
        model: Folder of a model, with versions or without.
        tracking_uri: Where MLflow keeps its runs: "sqlite:///runs.db", "http://...".

    Returns:
        The names of the versions that were logged, the oldest first.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: MLflow cannot be reached there, or refuses.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise MissingExtraError("mlflow", "exporting to MLflow") from None
    folders = model_folders(model)
    records = [read_record(folder) for folder in folders]
    try:
        client = MlflowClient(tracking_uri)
        experiment = client.get_experiment_by_name(model.resolve().name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(model.resolve().name)
        logged = []
        for folder, record in zip(folders, records, strict=True):
            is_current = str(folder == current_folder(model)).lower()
            which = file_digest(folder / CHECKSUMS)
            if runs := client.search_runs([experiment_id], f"tags.`recloom.digest` = '{which}'"):
                client.set_tag(runs[0].info.run_id, "recloom.current", is_current)
                continue
            tags = {"recloom.digest": which, "recloom.current": is_current, "recloom.version": folder.name}
            _log(client, experiment_id, folder, record, tags)
            logged.append(folder.name)
    except (MlflowException, OSError) as error:
        raise ConfigError(f"MLflow at {tracking_uri} did not take the runs: {error}") from None
    return logged


def _log(client: "MlflowClient", experiment_id: str, folder: Path, record: RunRecord, tags: dict[str, str]) -> None:
    from mlflow.entities import Metric, Param

    lineage = {f"recloom.{name}": json.dumps(value) for name, value in record.lineage.items()}
    about = {"recloom.dataset": record.dataset, "recloom.split": record.split, "recloom.encoder": record.encoder or ""}
    run = client.create_run(experiment_id, run_name=folder.name, tags={**tags, **about, **lineage})
    run_id, made = run.info.run_id, int((folder / "config.toml").stat().st_mtime * 1000)
    params = [
        Param(f"{table}.{name}", str(value))
        for table, values in read_run_file(folder / "config.toml").items()
        for name, value in values.items()
    ]
    figures = {
        "validation_ndcg_at_10": record.validation_ndcg_at_10,
        "ndcg_at_10_of_parent_on_new": record.lineage.get("ndcg_at_10_before"),
        "peak_memory_bytes": record.peak_memory_bytes,
        **{f"seconds_{name}": value for name, value in record.seconds.items()},
    }
    metrics = [Metric(name, value, made, 0) for name, value in figures.items() if value is not None]
    metrics += [
        Metric(f"epoch_{name}", epoch[name], made, epoch["epoch"])
        for epoch in record.curve
        for name in ("loss", "validation")
        if epoch[name] is not None
    ]
    for begin in range(0, len(params), 100):  # MLflow takes no more at once
        client.log_batch(run_id, params=params[begin : begin + 100])
    for begin in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[begin : begin + 1000])
    for name in FILES:
        client.log_artifact(run_id, str(folder / name))
    client.set_terminated(run_id)
