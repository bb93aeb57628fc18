"""Run one attempt of a search: trials of a recipe, through Ray Tune."""

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

from cluster.profiles import Profile
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.train import with_initial_weights
from orchestrator.drivers.tuning.conclusion import conclude, sweep_points
from orchestrator.drivers.tuning.journal import Journal, Trial
from orchestrator.drivers.tuning.recording import Recorder
from orchestrator.drivers.tuning.search import build_search
from orchestrator.drivers.tuning.trial import TrialSettings
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import Job
from orchestrator.jobs.space import num_trials, trial_config
from orchestrator.jobs.trial_store import TrialStore
from workloads import durable
from workloads.config.sweep import HyperBandConfig, PbtConfig, SweepConfig
from workloads.worker.ownership import Ownership
from workloads.worker.paths import JobPaths

_TRIES = 3
"""Of a trial whose process or machine was lost, in one attempt of the sweep."""

_SHOW_EVERY_S = 0.5

_TUNE_SETTINGS = {
    # Our journal and MLflow have all of it; Tune's tables and files would only cost time.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_INIT": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # The signal asks the trials to save; Tune would end them.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that diverged ends without a result.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


def run_tuning(
    profile: Profile, job: Job, attempt: int, paths: JobPaths, stop: StopSignal
) -> Outcome:
    """Search until every trial has ended or somebody asks for a stop."""
    if stop.is_set:
        return Outcome(kind="stopped", reason="stopped before the first trial")
    sweep = SweepConfig.model_validate(job.raw_spec["config"])
    if isinstance(sweep.scheduler, PbtConfig) and sweep.trial_workers > 1:
        reason = "population based training works with trials of one worker only"
        return Outcome.failed("user", reason)
    try:
        base = with_initial_weights(profile, sweep.base, paths)
    except (UnreachableError, ApiError):
        raise  # of the infrastructure: the next attempt asks again
    except GcpctlError as exc:
        return Outcome.failed("user", f"init.weights: {exc.message}")
    ownership = Ownership(paths, attempt)
    ownership.claim()
    journal = Journal(paths.root / "tune" / "journal.jsonl", ownership)
    if journal.damaged:
        say(f"warning: {journal.damaged} lines of the sweep's journal were damaged and left out")
    if journal.trials:
        say(f"{journal.num_ended} trials have ended, {len(journal.open_trials)} go on")
    sweeping = Sweeping(job, sweep, journal, paths, cap=job.num_workers // sweep.trial_workers)
    recorder = Recorder(
        TrialStore.of(profile), job, sweep, journal, of_sweep=lambda: sweep_points(sweep, journal)
    )
    recorder.start()
    settings = TrialSettings(
        job_id=job.job_id,
        root=str(paths.root),
        base=base,
        attempt=attempt,
        metric=sweep.objectives[0].metric,
        workers=sweep.trial_workers,
        cpus=job.gang.cpus_per_worker,
        gpus=job.gang.gpus_per_worker,
        saves_each_epoch=isinstance(sweep.scheduler, PbtConfig | HyperBandConfig),
        hands_on_weights=isinstance(sweep.scheduler, PbtConfig),
    )
    try:
        fatal = sweeping.run(settings, recorder, stop)
    finally:
        journal.close()
    ended, total = journal.num_ended, num_trials(sweep)
    is_stopped = stop.is_set and bool(journal.open_trials or ended < total)
    delivered = recorder.finish(stopped=is_stopped and fatal is None)
    if fatal is not None:
        return Outcome.failed(*fatal)
    if is_stopped:
        return Outcome(kind="stopped", reason=f"stopped after {ended} of {total} trials")
    if not delivered:
        return Outcome.failed("infrastructure", "the tracking server did not take the trials")
    return conclude(profile, job, sweep, journal, paths, recorder.run_ids)


@dataclass
class Sweeping:
    """One attempt of a search under way.

    Attributes:
        cap: Trials at once.
        shown_s: When progress was shown last.
    """

    job: Job
    sweep: SweepConfig
    journal: Journal
    paths: JobPaths
    cap: int
    shown_s: float = float("-inf")

    def run(
        self, settings: TrialSettings, recorder: Recorder, stop: StopSignal
    ) -> tuple[str, str] | None:
        """Run trials until none is left; return the failure that ended it early, if one did."""
        os.environ.update(_TUNE_SETTINGS)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.cap)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        from ray import tune

        from orchestrator.drivers.tuning.feeder import Ending, Listener, TrialFeeder
        from orchestrator.drivers.tuning.schedulers import build_scheduler, replay
        from orchestrator.drivers.tuning.trainable import TrialActor

        def stopping() -> bool:
            if listener.fatal is not None and not self.paths.stop.exists():
                self.paths.stop.touch()  # the other trials save and leave
            return stop.is_set or listener.fatal is not None

        def changed(trial: Trial) -> None:
            recorder.note(trial)
            if trial.end is not None or time.monotonic() - self.shown_s >= _SHOW_EVERY_S:
                self._show_progress()

        sweep, journal = self.sweep, self.journal
        name = sweep.scheduler.name if sweep.scheduler is not None else ""
        listener = Listener(journal, scheduler=name, stopping=stopping, changed=changed)
        feeder = TrialFeeder(
            journal,
            build_search(sweep),
            settings,
            total=num_trials(sweep),
            cap=self.cap,
            pauses=settings.saves_each_epoch,
            stopping=stopping,
        )
        epochs = trial_config(sweep.base, {}).epochs
        scheduler = build_scheduler(sweep, epochs=epochs, cap=self.cap, stopping=stopping)
        replay(scheduler, journal.trials.values(), settings.metric)
        if feeder.is_finished():  # all had ended when the attempt before was lost
            return None
        self._show_progress()
        before, began = journal.num_ended, time.monotonic()
        scratch = self.paths.root / "tune" / "ray"
        durable.remove_tree(scratch)  # of attempts before; it is never read again
        tune.run(
            TrialActor,
            name="trials",
            storage_path=str(scratch),
            resources_per_trial=_resources(settings),
            num_samples=feeder.total_samples,
            search_alg=feeder,
            scheduler=scheduler,
            callbacks=[listener],
            stop=Ending(feeder, stopping),
            max_failures=_TRIES,
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_dirname_creator=_folder_name,
            verbose=0,
        )
        durable.remove_tree(scratch)
        say(
            f"{journal.num_ended - before} trials ended in {time.monotonic() - began:.2f} s, "
            f"{self.cap} at once"
        )
        return listener.fatal

    def _show_progress(self) -> None:
        """Tell people, through the tracker, how far the search is."""
        self.shown_s = time.monotonic()
        journal, total = self.journal, num_trials(self.sweep)
        ended = [trial for trial in journal.trials.values() if trial.end is not None]
        seconds = sum(trial.seconds for trial in ended)
        eta_s = seconds / len(ended) * (total - len(ended)) / self.cap if ended else None
        first = self.sweep.objectives[0]
        best = sweep_points(self.sweep, journal)[:1]
        shown = f", best {first.metric} {best[0][1]:.4g}" if best else ""
        progress: dict[str, Any] = {
            "phase": "search",
            "text": f"{len(ended)} of {total} trials{shown}",
            "epoch": len(ended),
            "epochs": total,
            "trials_done": len(ended),
            "trials_running": len(journal.open_trials),
            "trials": total,
            "global_step": len(ended),
            "total_steps": total,
            "best": best[0][1] if best else None,
            "metric": first.metric,
            "eta_s": eta_s,
        }
        try:
            durable.write_json_fleeting(self.paths.progress, progress)
        except OSError as exc:
            say(f"warning: progress cannot be shown: {exc}")


def _resources(settings: TrialSettings) -> Any:
    """Return what Ray Tune reserves for a trial.

    A trial of several workers holds them through Ray Train; its own process needs no core, and
    asking for a part of one could wait for ever on a machine whose cores the workers fill.
    """
    from ray.tune import PlacementGroupFactory

    if settings.workers > 1:
        return PlacementGroupFactory([{"CPU": 0, "memory": 1}])
    gpus = {"GPU": settings.gpus} if settings.gpus else {}
    return PlacementGroupFactory([{"CPU": settings.cpus, **gpus}])


def _folder_name(trial: Any) -> str:
    return str(trial.trial_id)
