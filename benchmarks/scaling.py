"""What each stage costs a million interactions, from one million on; and lists a second with one worker and with two.

    python benchmarks/scaling.py curve --millions 1,3,10
    python benchmarks/scaling.py workers --model MODEL
    python benchmarks/scaling.py plot

Each stage runs in a process of its own, with one thread. Processor time is what counts, as others use the machine;
preparation is that of a cluster (`prepare_on_cluster`) with its jobs done here one after the other, so that all of its
work is seen and none of Ray's. Figures are added to `benchmarks/scaling.jsonl`.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
FIGURES = HERE / "scaling.jsonl"
DRAWN = (3, 4)
"""Runs in which the catalogue grows with the log, to 100 million interactions."""
DASHES = ("4 3", "none")
"""Of the lines of even runs and of odd ones."""
INTERACTIONS_A_USER = 25
ITEMS_A_MILLION = 10_000
MOST_ITEMS = int(os.environ.get("MOST_ITEMS", "1000000"))
"""Of a catalogue; what a million interactions cost without it growing is seen with few."""
USERS_OF_A_PART, MOST_PARTS = 1_000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    curve = what.add_parser("curve")
    curve.add_argument("--millions", default="1,3,10")
    curve.add_argument("--stages", default="generate,prepare,encode,recommend")
    curve.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "recloom-scaling")
    workers = what.add_parser("workers")
    workers.add_argument("--model", type=Path, required=True)
    workers.add_argument("--queries", type=int, default=1_000, help="Queries of a part.")
    stage = what.add_parser("stage")
    stage.add_argument("name")
    stage.add_argument("millions", type=float)
    stage.add_argument("folder", type=Path)
    what.add_parser("plot")
    options = parser.parse_args()
    if options.what == "curve":
        for millions in map(float, options.millions.split(",")):
            for name in options.stages.split(","):
                run_stage(name, millions, options.folder / f"{millions:g}")
            shutil.rmtree(options.folder / f"{millions:g}")
    elif options.what == "stage":
        STAGES[options.name](options.millions, options.folder)
    elif options.what == "workers":
        count_workers(options.model, options.queries)
    else:
        plot()


def run_stage(name: str, millions: float, folder: Path) -> None:
    """Run one stage in a process of its own, and note what it took."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "stage", name, str(millions), str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = json.loads(done.stdout.splitlines()[-1])
    note(
        {
            "stage": name,
            "millions": millions,
            "seconds": round(time.monotonic() - began, 1),
            "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            **facts,
        }
    )


def note(figures: dict[str, object]) -> None:
    with FIGURES.open("a") as file:
        file.write(json.dumps({**figures, "run": RUN}) + "\n")
    print(figures, flush=True)


def say(**facts: object) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"work_seconds": round(time.process_time() - STARTED, 2), "peak_bytes": peak, **facts}))


def size_of(*paths: Path) -> int:
    return sum(
        file.stat().st_size
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    )


def generate(millions: float, folder: Path) -> None:
    from recloom.events import Synthetic, write_synthetic

    begin()
    interactions = round(millions * 1_000_000)
    items = min(MOST_ITEMS, round(millions * ITEMS_A_MILLION))
    write_synthetic(folder / "raw", Synthetic(interactions // INTERACTIONS_A_USER, items, interactions))
    say(bytes=size_of(folder / "raw"))


def prepare(millions: float, folder: Path) -> None:
    from recloom.cluster import preparation

    def here(jobs, function, arguments=(), **_):
        return ((place, function(job, *arguments)) for place, job in enumerate(jobs))

    begin()
    preparation.spread = here
    items = str(folder / "raw" / "items")
    preparation.prepare_on_cluster([str(folder / "raw" / "interactions")], items, out=folder / "dataset")
    say(bytes=size_of(folder / "dataset" / "dataset.h5"))


def encode(millions: float, folder: Path) -> None:
    from recloom.dataset import Dataset
    from recloom.encoders import encode_texts, item_texts, load_encoder

    begin()
    texts = item_texts(Dataset.open(folder / "dataset").item_table, None)
    encode_texts(load_encoder("hashing"), texts, cache=folder / "dataset" / "embeddings.h5")
    say(bytes=size_of(folder / "dataset" / "embeddings.h5"), texts=len(texts))


def train(millions: float, folder: Path) -> None:
    from recloom import Recommender
    from recloom.dataset import Dataset

    # An epoch and what is done once for each item; no text is read, and co-occurrence is not counted.
    training = {"epochs": 1, "refit": False, "validation_cases": 200}
    model = {"warm_start": False, "popularity": False}
    dataset = Dataset.open(folder / "dataset")
    begin()
    fitted = Recommender.fit(
        dataset, "weave", settings={"encoder": {"name": "none"}, "model": model, "training": training}
    )
    fitted.save(folder / "trained")
    say(bytes=size_of(folder / "trained" / "model.safetensors"), epoch_seconds=round(fitted.run.curve[0]["seconds"], 1))


def recommend(millions: float, folder: Path) -> None:
    from recloom.bulk import Asked, answer_part, write_lists
    from recloom.dataset import Dataset
    from recloom.recommender import Recommender

    # A model that has learned little ranks as fast as any other, and starts at random sooner.
    training = {"epochs": 1, "refit": False, "budget": 1.0, "validation_cases": 200}
    settings = {"encoder": {"name": "none"}, "model": {"warm_start": False}, "training": training}
    dataset = Dataset.open(folder / "dataset")
    Recommender.fit(dataset, "weave", settings=settings).save(folder / "model")
    asked = Asked(model=str(folder / "model"), queries_of_a_part=USERS_OF_A_PART)
    recommender = asked.load()

    def some(parts, asked, out):
        return (answer_part(part, recommender, asked, out) for part in parts[:MOST_PARTS])

    begin()
    written = write_lists(asked, folder / "lists", some)
    # Lists of all users would take as much longer as there are more.
    say(bytes=size_of(folder / "lists"), users=written.queries, share=written.queries / len(dataset.users))


RUN = int(os.environ.get("RUN", "1"))
"""Which run the figures are of: only those of one are to be compared."""
STAGES = {"generate": generate, "prepare": prepare, "encode": encode, "train": train, "recommend": recommend}
STARTED = 0.0


def begin() -> None:
    global STARTED
    STARTED = time.process_time()


def count_workers(model: Path, queries: int) -> None:
    """Make the lists of a model's users with one worker and with two; time from the first part that is done on."""
    from recloom.bulk import Asked, write_lists
    from recloom.cluster import LOCAL, connected
    from recloom.cluster.answering import answer_on_cluster

    asked = Asked(model=str(model.absolute()), queries_of_a_part=queries)
    with connected(LOCAL):
        for workers in (1, 2, 1, 2):
            at: list[float] = []
            counts: list[int] = []

            def answers(parts, asked, out, workers=workers, at=at, counts=counts):
                for written in answer_on_cluster(parts, asked, out, workers=workers):
                    at.append(time.monotonic())
                    counts.append(written.queries)
                    yield written

            with tempfile.TemporaryDirectory() as folder:
                write_lists(asked, Path(folder) / "lists", answers)
            # Until each worker has done a part, some of the time goes into loading the model.
            users = sum(counts[workers:])
            rate = users / (at[-1] - at[workers - 1])
            note({"stage": "workers", "workers": workers, "users": users, "users_per_second": round(rate, 1)})


def plot() -> None:
    """Draw processor seconds and megabytes a million interactions of the runs in `DRAWN`, both axes logarithmic."""
    rows = [row for row in map(json.loads, FIGURES.read_text().splitlines()) if row["stage"] in STAGES]
    rows = [row for row in rows if row["run"] in DRAWN]
    shapes: list[str] = []
    for panel, (what, key, scale) in enumerate((("processor seconds", "work_seconds", 1), ("megabytes", "bytes", 1e6))):
        shapes += draw_panel(f"{what} for a million interactions", rows, key, scale, left=60 + 370 * panel)
    body = "\n".join(shapes)
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="780" height="270" font-family="sans-serif" font-size="11">'
    (HERE / "scaling.svg").write_text(f'{head}\n<rect width="780" height="270" fill="white"/>\n{body}\n</svg>\n')


def draw_panel(title: str, rows: list[dict[str, float]], key: str, scale: float, left: int) -> list[str]:
    width, height, top, decades = 240, 200, 40, 4

    def x(millions: float) -> float:
        return left + width * math.log10(millions) / 2  # 1 to 100 million

    def y(value: float) -> float:
        return top + height * (1 - (math.log10(value) + 1) / decades)  # 0.1 to 1,000

    shapes = [f'<text x="{left}" y="{top - 15}" font-weight="bold">{title}</text>']
    shapes += [
        f'<text x="{x(millions):.0f}" y="{top + height + 15}" text-anchor="middle">{millions} million</text>'
        for millions in (1, 10, 100)
    ]
    for value in (0.1, 1, 10, 100, 1_000):
        shapes.append(f'<text x="{left - 6}" y="{y(value) + 4:.0f}" text-anchor="end">{value:g}</text>')
        shapes.append(f'<line x1="{left}" x2="{left + width}" y1="{y(value):.0f}" y2="{y(value):.0f}" stroke="#ddd"/>')
    colours = dict(zip(STAGES, ("#1b6ca8", "#d95f02", "#2a9d4a", "#c2185b", "#8a4fbe"), strict=True))
    for stage, run in sorted({(row["stage"], row["run"]) for row in rows}):
        points = sorted(
            (row["millions"], row[key] / row.get("share", 1) / row["millions"] / scale)
            for row in rows
            if (row["stage"], row["run"]) == (stage, run)
        )
        path = " ".join(f"{x(millions):.1f},{y(value):.1f}" for millions, value in points)
        line = f'fill="none" stroke="{colours[stage]}" stroke-width="2" stroke-dasharray="{DASHES[run % 2]}"'
        shapes.append(f'<polyline points="{path}" {line}/>')
        for millions, value in points:
            shapes.append(f'<circle cx="{x(millions):.1f}" cy="{y(value):.1f}" r="3" fill="{colours[stage]}"/>')
        millions, value = points[-1]
        place = f'x="{x(millions) + 7:.0f}" y="{y(value) - 5:.0f}" fill="{colours[stage]}"'
        shapes.append(f"<text {place}>{stage} {run}</text>")
    return shapes


if __name__ == "__main__":
    main()
