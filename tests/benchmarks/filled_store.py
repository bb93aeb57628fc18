"""A tracking server of its own with as many jobs as wanted, for benchmarks.

It holds one real study and one real training, recorded as the commands record them. All further
jobs are copies of these under other names, written straight into the server's database, with what
controller and drivers add as they go.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.credentials import create_token
from cluster.layout import Layout, save_json
from cluster.ports import LOOPBACK, choose_ports
from orchestrator.jobs.job import STUDY
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_study import StudyRequest, plan_study
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.reuse import all_new
from orchestrator.jobs.store import JobStore
from orchestrator.jobs.submit import attach_provenance, record
from orchestrator.jobs.submit_study import StudyRecorder
from orchestrator.results.collect import collect
from orchestrator.results.compare import compare
from orchestrator.results.exports import to_json

RECIPE = "digits_resnet_isqrt"
SEEDS = 3
JOBS_PER_STUDY = 300
HOUR_MS = 3_600_000
EPOCHS = 8
EPOCH_METRICS = {
    "train/loss": 0.31, "train/top1": 93.2, "val/top1": 95.4, "val/top5": 99.8, "val/loss": 0.15,
    "optim/lr": 0.01, "perf/images_per_s": 1512.0, "time/epoch_s": 2.1, "time/train_s": 17.5,
    "progress/epoch": float(EPOCHS),
}  # fmt: skip
COST_METRICS = {"model/parameters": 173_434.0, "model/macs": 4.1e6, "perf/peak_memory_mb": 611.0}
STUDY_TAGS = {
    "gcpctl.members": str(JOBS_PER_STUDY), "gcpctl.progress": "{}",
    "gcpctl.reason": "best pooling=isqrt,width=8: top-1 96.10 ± 0.20 %",
    "gcpctl.result": json.dumps({
        "metric": "eval/top1", "best": "pooling=isqrt,width=8", "baseline": "pooling=isqrt,width=9",
        "study/num_cells": 50.0, "study/num_trainings": 150.0, "study/num_failed": 1.0,
        "study/num_missing": 1.0, "study/num_reused": 0.0, "study/train_s": 2625.0,
        "study/best_eval_top1": 96.1, "study/baseline_eval_top1": 96.0,
        "files": ["report/report.md", "report/report.html", "report/comparison.json"],
    }),
}  # fmt: skip
EVAL_METRICS = {"eval/top1": 96.1, "eval/top5": 99.9, "eval/loss": 0.14, "eval/ece": 0.012}


@dataclass(frozen=True)
class Template:
    """A recorded run: what its copies are made of."""

    job_id: str
    run_id: str
    row: tuple[object, ...]
    tags: dict[str, str]
    params: dict[str, str]

    @property
    def kind(self) -> str:
        """`train`, `eval` or `ablation`."""
        return self.tags["gcpctl.kind"]


@dataclass(frozen=True)
class Filled:
    """Ids of a study that waits, one that runs, one that is over, and a training of none."""

    queued: str
    running: str
    finished: str
    alone: str


@dataclass
class Rows:
    """Rows to insert, by table."""

    runs: list[tuple[object, ...]] = field(default_factory=list)
    tags: list[tuple[object, ...]] = field(default_factory=list)
    params: list[tuple[object, ...]] = field(default_factory=list)
    latest: list[tuple[object, ...]] = field(default_factory=list)
    metrics: list[tuple[object, ...]] = field(default_factory=list)


class Database:
    """The server's own database, written beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as db:
            self._columns = [row[1] for row in db.execute("PRAGMA table_info(runs)")]
            self._names = {
                table: ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
                for table in ("latest_metrics", "metrics")
            }

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as db, db:
            yield db

    def templates(self) -> list[Template]:
        """Return all runs there are."""
        with self._open() as db:
            found = []
            for row in db.execute(f"SELECT {', '.join(self._columns)} FROM runs"):
                run_id = row[self._columns.index("run_uuid")]
                tags = dict(db.execute("SELECT key, value FROM tags WHERE run_uuid=?", (run_id,)))
                params = dict(
                    db.execute("SELECT key, value FROM params WHERE run_uuid=?", (run_id,))
                )
                found.append(Template(tags["gcpctl.job_id"], run_id, row, tags, params))
        return found

    def copy(
        self, rows: Rows, template: Template, names: Mapping[str, str], state: str, start_ms: int
    ) -> None:
        """Add a copy of a run; `names` says what each id in its texts becomes."""
        run_id, over = names[template.run_id], state in ("FINISHED", "FAILED")
        launch_ms, end_ms = start_ms + 1000, start_ms + 21_000
        given = {
            "run_uuid": run_id, "name": names[template.job_id], "status": state,
            "start_time": start_ms, "end_time": end_ms if over else None,
            "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts",
        }  # fmt: skip
        old = dict(zip(self._columns, template.row, strict=True))
        rows.runs.append(tuple((old | given)[column] for column in self._columns))
        tags = {_renamed(k, names): _renamed(v, names) for k, v in template.tags.items()}
        tags |= _observed(template.kind, names[template.job_id], state, launch_ms)
        rows.tags += [(key, value, run_id) for key, value in tags.items()]
        rows.params += [(key, value, run_id) for key, value in template.params.items()]
        if state not in ("FINISHED", "RUNNING") or template.kind == "ablation":
            return
        once = EVAL_METRICS if template.kind == "eval" else EPOCH_METRICS | COST_METRICS
        for key, value in once.items():
            point = {"key": key, "value": value, "timestamp": end_ms, "step": EPOCHS}
            row = point | {"is_nan": 0, "run_uuid": run_id}
            rows.latest.append(
                tuple(row[name] for name in self._names["latest_metrics"].split(", "))
            )
            steps = range(1, EPOCHS + 1) if key in EPOCH_METRICS else (EPOCHS,)
            order = self._names["metrics"].split(", ")
            rows.metrics += [tuple((row | {"step": s})[name] for name in order) for s in steps]

    def insert(self, rows: Rows) -> None:
        """Write all of it in one transaction."""
        with self._open() as db:
            for table, columns, values in (
                ("runs", ", ".join(self._columns), rows.runs),
                ("tags", "key, value, run_uuid", rows.tags),
                ("params", "key, value, run_uuid", rows.params),
                ("latest_metrics", self._names["latest_metrics"], rows.latest),
                ("metrics", self._names["metrics"], rows.metrics),
            ):
                marks = ", ".join("?" for _ in columns.split(", "))
                db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _observed(kind: str, job_id: str, state: str, launch_ms: int) -> dict[str, str]:
    """Return the tags that controller and driver write."""
    if state == "SCHEDULED":
        said = {"gcpctl.members": str(JOBS_PER_STUDY), "gcpctl.counted_ms": str(launch_ms)}
        said["gcpctl.reason"] = f"70 of {JOBS_PER_STUDY} done, 2 running"
        return said if kind == "ablation" else {"gcpctl.reason": "waiting: 2 CPUs, 0 free"}
    step, total = (4, EPOCHS) if state == "RUNNING" else (EPOCHS, EPOCHS)
    progress = {
        "phase": "train", "epoch": step, "epochs": total, "step": 45, "steps_per_epoch": 45,
        "global_step": step * 45, "total_steps": total * 45, "loss": 0.31, "eta_s": 8.0,
        "images_per_s": 1512.3, "val_top1": 95.4, "best_top1": 95.4,
    }  # fmt: skip
    tags = {
        "gcpctl.attempt": "1", "gcpctl.workers": "1", "gcpctl.launching": "", "gcpctl.phase": "",
        "gcpctl.first_launch_ms": str(launch_ms), "gcpctl.attempt_launch_ms": str(launch_ms),
        "gcpctl.shared_driver": "", "gcpctl.node": "node", "gcpctl.progress": json.dumps(progress),
    }  # fmt: skip
    if state == "RUNNING":
        return tags | {"gcpctl.phase": "training"}
    if state == "FAILED":
        outcome = {"outcome": "failed", "class": "user", "reason": "the loss is not a number"}
        verdict = json.dumps(outcome)
        return tags | {"gcpctl.verdict.1": verdict, "gcpctl.reason": outcome["reason"]}
    if kind == "ablation":
        return tags | STUDY_TAGS | {"gcpctl.outcome.1": json.dumps({"outcome": "finished"})}
    result = {"epochs": EPOCHS, "best_top1": 95.4, "best_epoch": 7, "val_top1": 95.4,
              "num_val_images": 360, "weights_sha256": "f" * 64}  # fmt: skip
    return tags | {
        "gcpctl.result": json.dumps(result),
        "gcpctl.outcome.1": json.dumps({"outcome": "finished", "reason": ""}),
        "gcpctl.weights_sha256": "f" * 64,
        "gcpctl.checkpoints": f"/storage/{job_id}/checkpoints",
    }


def record_templates(store: JobStore) -> None:
    """Submit a small study and a training, without a cluster to run them."""
    provenance = Provenance("somebody", "gcpctl submit", commit="c" * 40, branch="main")
    request = StudyRequest(only=("pooling=isqrt",))
    plan = plan_study("pooling", ("seeds=[0]",), request)
    found = all_new(plan, Path("/nowhere"))
    StudyRecorder(store, plan, found, provenance, cluster="lab").record()
    alone = plan_train(RECIPE, (), Request())
    job = record(store, alone, provenance, cluster="lab")
    attach_provenance(store, job, alone, provenance)


def fill(database: Database, num_jobs: int, num_studies: int) -> Filled:
    """Fill the store up to so many jobs."""
    templates = database.templates()
    parent = next(t for t in templates if t.kind == "ablation")
    alone = next(t for t in templates if t.kind == "train" and not t.tags["gcpctl.group"])
    rows, now_ms, num = Rows(), int(time.time() * 1000), len(templates)
    studies = []
    for index in range(num_studies):
        studies.append(_copy_study(database, rows, templates, parent, index, now_ms))
        num += 1 + JOBS_PER_STUDY
    while num < num_jobs:
        name = f"train-{RECIPE}-{num:05d}"
        names = {alone.job_id: name, alone.run_id: uuid.uuid4().hex}
        state = "RUNNING" if num + 1 == num_jobs else "FAILED" if num % 50 == 0 else "FINISHED"
        age_ms = HOUR_MS * (num_studies + num_jobs - num)
        database.copy(rows, alone, names, state, now_ms - age_ms)
        num += 1
    database.insert(rows)
    return Filled(queued=studies[0], running=studies[1], finished=studies[2], alone=name)


def store_reports(store: JobStore, artifacts: Path) -> None:
    """Give each study that is over what a report says of its cells: those of one, for all."""
    over = store.search(
        f"tags.`gcpctl.kind` = '{STUDY}' AND attributes.status = 'FINISHED'", limit=1000
    )
    found = compare(collect(store, [over[0].job_id]), "top1") if over else None
    for study in over:
        assert found is not None
        path = artifacts / study.experiment_id / study.run_id / "artifacts/report/comparison.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"version": 1, "comparison": to_json(found)}))


def _copy_study(
    database: Database,
    rows: Rows,
    templates: list[Template],
    parent: Template,
    index: int,
    now_ms: int,
) -> str:
    """Add a study with its jobs; number 0 is queued, number 1 runs, the others are over."""
    study = f"ablation-pooling-{index:04d}"
    of_study = {parent.job_id: study, parent.run_id: uuid.uuid4().hex}
    start_ms = now_ms - (index + 1) * HOUR_MS
    state = "FINISHED" if index > 1 else "SCHEDULED"
    baseline = {"pooling=gap": "pooling=isqrt,width=8"}
    database.copy(rows, parent, of_study | baseline, state, start_ms)
    own = [t for t in templates if t.tags["gcpctl.group"] == parent.job_id]
    trained, judged = (
        next(t for t in own if t.kind == kind and t.tags["gcpctl.cell"] == "pooling=isqrt")
        for kind in ("train", "eval")
    )
    for number in range(JOBS_PER_STUDY // 2):
        cell, seed = f"pooling=isqrt,width={8 + number // SEEDS}", str(number % SEEDS)
        names = of_study | {
            trained.job_id: f"pooling-isqrt-w{8 + number // SEEDS}-s{seed}-t{index:03d}",
            trained.run_id: uuid.uuid4().hex,
            judged.job_id: f"eval-pooling-isqrt-w{8 + number // SEEDS}-s{seed}-e{index:03d}",
            judged.run_id: uuid.uuid4().hex,
            "pooling=isqrt": cell,
            '"seed":0': f'"seed":{seed}',
            "seed=0": f"seed={seed}",
        }
        over = "FAILED" if number == 7 else "FINISHED"
        state = over if index > 1 or (index == 1 and number < 70) else "SCHEDULED"
        running = index == 1 and 70 <= number < 72
        own_tags = {"gcpctl.config_sha256": f"{index:04d}{number:060d}", "gcpctl.seed": seed}
        training = replace(
            trained, tags=trained.tags | own_tags, params=trained.params | {"seed": seed}
        )
        for template in (training, judged):
            now = "RUNNING" if running and template is training else state
            database.copy(rows, template, names, now, start_ms + number * 20_000)
    return study


@contextlib.contextmanager
def tracking_server(home: Path) -> Iterator[Path]:
    """Serve MLflow for this home; yields the path of its database."""
    layout = Layout(home)
    for folder in layout.folders():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_token(layout.token)
    port = choose_ports(["mlflow"])["mlflow"]
    url = f"http://{LOOPBACK}:{port}"
    save_json(
        layout.profile,
        {"ray_url": url, "mlflow_url": url, "token_path": "token", "storage_path": "../storage"},
    )
    command = [sys.executable, "-m", "cluster.mlflow_server", f"--home={home}", f"--port={port}"]
    with subprocess.Popen(command) as server:
        try:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health"):
                    break
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the tracking server did not come up")
                time.sleep(0.2)
            yield layout.mlflow / "mlflow.db"
        finally:
            server.terminate()
