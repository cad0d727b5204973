"""`recloom fit`: a dataset to a model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recloom.cli.console import ShownProgress, console, messages, parse_duration
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.cluster.training import RayFitter
from recloom.config import parse_settings, read_run_file
from recloom.dataset import Dataset
from recloom.errors import ConfigError
from recloom.fitting import fit_model
from recloom.lifecycle.versions import has_versions, keep
from recloom.memory import spare_memory
from recloom.recommender import Recommender, check_replaceable
from recloom.run_config import profile_settings
from recloom.training import remove_checkpoint


def fit(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    model: Annotated[str | None, typer.Option(help="weave (default) or another; an unknown name lists them.")] = None,
    protocol: Annotated[str | None, typer.Option(help="temporal (default), leave-one-out or user-disjoint.")] = None,
    ties: Annotated[str | None, typer.Option(help="strict or file: what equal timestamps mean.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="minilm, multilingual, hashing, none, openai:MODEL, a folder or a hub name.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="small: settings with which fitting and serving take less than 1 GB of memory.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Learn from everything in the end, to serve.")] = False,
    budget: Annotated[str | None, typer.Option(help="Most time to train: 90s, 10m, 1h.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Begin with what recloom pretrain wrote; training.epochs=0 leaves it at that.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Fitted model to learn from as well.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; unset, a GPU where there is one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything that is random.")] = None,
    settings: Annotated[list[str], typer.Option("--set", help="Any option: training.epochs=20. Repeatable.")] = [],  # noqa: B006
    config: Annotated[Path | None, typer.Option(help="Run file in TOML with the same tables as a model's.")] = None,
    ray: RayAddress = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --ray, how many train together: one for each GPU, or else node.")
    ] = None,
) -> None:
    """Train a model. Ctrl-C keeps the best so far; after a kill, the same command goes on where it was."""
    tables = read_run_file(config) if config else {}
    recorded = tables.pop("recloom", {})  # a model's own config.toml is a run file too
    name = model or recorded.get("model", "weave")
    if profile:
        spare_memory()
        settings_of_profile = profile_settings(profile, name)
        tables = {
            table: settings_of_profile.get(table, {}) | tables.get(table, {}) for table in settings_of_profile | tables
        }
    if not has_versions(out):
        check_replaceable(out)
    short: dict[str, dict[str, Any]] = {
        "split": {"protocol": protocol, "ties": ties, "everything": everything or None},
        "encoder": {"name": encoder},
        "training": {
            "budget": parse_duration(budget) if budget else None,
            "device": device,
            "pretrained": str(Path(pretrained).resolve()) if pretrained else None,
            "teacher": teacher,
            "seed": seed,
        },
    }
    for more in (short, parse_settings(settings)):
        for table, values in more.items():
            tables.setdefault(table, {}).update({name: v for name, v in values.items() if v is not None})
    checkpoint = out.with_name(f".{out.name}.checkpoint")
    if workers and ray is None:
        raise ConfigError("--workers is for training on a Ray cluster; add --ray")
    with on_ray(ray) as is_shared, ShownProgress() as progress:
        recommender = Recommender.fit(
            Dataset.open(dataset),
            name,
            settings=tables,
            checkpoint=checkpoint,
            progress=progress,
            fitter=RayFitter(workers) if is_shared else fit_model,
        )
    version = keep(recommender, out)
    remove_checkpoint(checkpoint)
    show_fit(recommender)
    next_step = "recommend" if recommender.config.split.everything else "evaluate"
    written = f"{out} version {version}" if version else str(out)
    console.print(f"Wrote {written}. Next: recloom {next_step} {out}", soft_wrap=True)


def show_fit(recommender: Recommender) -> None:
    """Print how training went."""
    run, config = recommender.run, recommender.config
    for warning in run.warnings:
        messages.print(f"warning: {warning}", soft_wrap=True, markup=False)
    parts = [f"{config.model_name} fitted in {sum(run.seconds.values()):.0f} s"]
    if run.seconds["encode"] >= 1:
        looking = " and looking at pictures" if recommender.text and recommender.text.others else ""
        parts.append(f"{run.seconds['encode']:.0f} s of it reading text{looking}")
    if run.best_epoch:
        parts.append(f"best epoch {run.best_epoch} of {len(run.curve)}, stopped by {run.stopped}")
    if run.validation_ndcg_at_10 is not None:
        parts.append(f"validation NDCG@10 {run.validation_ndcg_at_10:.4f}")
    if run.privacy:
        parts.append(
            f"private: epsilon {run.privacy['epsilon']:.2f} at delta {run.privacy['delta']:.1e} for each of"
            f" {run.privacy['people']:,} people, in the weights and not in the data beside them"
        )
    if config.include_seen:
        parts.append("seen items stay in the lists, as people here come back to them")
    console.print("; ".join(parts) + ".", soft_wrap=True)
