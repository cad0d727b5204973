"""Each version becomes a run, once; and nothing of what people did leaves with it."""

import json

import pytest
from typer.testing import CliRunner

from recloom.cli import app
from recloom.errors import ConfigError
from recloom.lifecycle.mlflow_export import export_mlflow
from recloom.lifecycle.versions import roll_back
from tests.test_versions import logs, model, update  # noqa: F401 -- fixtures

mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # of MLflow about what SQLAlchemy deprecates


@pytest.fixture
def tracking(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


def runs_at(tracking):
    client = mlflow.MlflowClient(tracking)
    experiment = client.get_experiment_by_name("model")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_each_version_is_a_run_with_settings_figures_and_lineage(model, logs, tracking, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)  # where MLflow puts what is handed over
    update(model, logs[0])
    assert export_mlflow(model, tracking) == ["v0001", "v0002"]
    runs = runs_at(tracking)
    first, second = runs["v0001"].data, runs["v0002"].data
    written = json.loads((model / "v0002" / "metrics.json").read_text())
    assert first.params["recloom.model"] == "weave"
    assert first.params["training.epochs"] == second.params["training.epochs"]
    assert json.loads(second.tags["recloom.parent"]) == "v0001"
    assert (first.tags["recloom.current"], second.tags["recloom.current"]) == ("false", "true")
    assert second.metrics["ndcg_at_10_of_parent_on_new"] == pytest.approx(written["lineage"]["ndcg_at_10_before"])
    curve = mlflow.MlflowClient(tracking).get_metric_history(runs["v0001"].info.run_id, "epoch_loss")
    epochs = json.loads((model / "v0001" / "metrics.json").read_text())["curve"]
    assert [(point.step, point.value) for point in curve] == [(epoch["epoch"], epoch["loss"]) for epoch in epochs]
    assert runs["v0002"].info.status == "FINISHED"


def test_what_is_there_is_not_logged_again_and_the_current_one_is_marked(model, logs, tracking, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    update(model, logs[0])
    export_mlflow(model, tracking)
    roll_back(model)
    assert export_mlflow(model, tracking) == []
    runs = runs_at(tracking)
    assert len(runs) == 2
    assert runs["v0001"].data.tags["recloom.current"] == "true"
    assert runs["v0002"].data.tags["recloom.current"] == "false"


def test_nothing_of_what_people_did_is_handed_over(model, logs, tracking, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    export_mlflow(model, tracking)
    handed = [path.name for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert sorted(handed) == ["SHA256SUMS", "config.toml", "metrics.json"]


def test_an_address_that_mlflow_does_not_take(model, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="MLflow at nonsense://here did not take the runs"):
        export_mlflow(model, "nonsense://here")
    result = CliRunner().invoke(app, ["export", str(model), "--format", "word", "--out", "x"])
    assert isinstance(result.exception, ConfigError)
    assert "there are: onnx, mlflow" in str(result.exception)
