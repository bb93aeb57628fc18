"""The methods paragraph of a study, in words that one may paste into a paper.

Every number is the config's, the comparison's or the store's. What differs between cells is left
to the table; what none of them uses is left out.
"""

from collections.abc import Mapping, Sequence

from orchestrator.results.comparison import Comparison, Scalar
from orchestrator.results.document import code, plain
from orchestrator.results.study_facts import StudyFacts

_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "lars": "LARS", "lamb": "LAMB"}


def methods(facts: StudyFacts, comparison: Comparison) -> list[str]:
    """Return the sentences of the paragraph, in groups: training, evaluation, statistics."""
    base = next((cell for cell in comparison.cells if cell.is_baseline), comparison.cells[0])
    config = base.trainings[0].config if base.trainings else {}
    # What moves between cells is no part of what they share.
    shared = {k: v for k, v in config.items() if k not in comparison.differing_keys}
    return [
        " ".join(filter(None, (_network(facts, shared), _training(shared), _cells(comparison)))),
        " ".join(filter(None, (_seeds(facts, comparison), _evaluation(facts, comparison, shared)))),
        statistics_text(comparison),
    ]


def _network(facts: StudyFacts, config: Mapping[str, Scalar]) -> str:
    parts = [f"All networks were trained from the recipe {code(facts.recipe)}"]
    if facts.overrides:
        changes = ", ".join(code(f"{k}={_value(v)}") for k, v in facts.overrides.items())
        parts.append(f" with {changes}")
    if "model.backbone.name" in config:
        parts.append(f": {plain(str(config['model.backbone.name']))}")
    if "data.name" in config:
        data = f"{plain(str(config['data.name']))}"
        size = f" in images of {config['images.size']} pixels" if "images.size" in config else ""
        parts.append(f" on {data}{size}")
    return "".join(parts) + "."


def _training(config: Mapping[str, Scalar]) -> str:
    known = []
    if "epochs" in config:
        known.append(f"{config['epochs']} epochs")
    if "global_batch_size" in config:
        known.append(f"batches of {config['global_batch_size']} images")
    if "optim.name" in config:
        known.append(_optimizer(config))
    if "schedule.name" in config:
        known.append(_schedule(config))
    if config.get("label_smoothing"):
        known.append(f"label smoothing {_number(config['label_smoothing'])}")
    if config.get("clip_norm"):
        known.append(f"gradients clipped to norm {_number(config['clip_norm'])}")
    if config.get("ema.decay"):
        known.append(f"an average of the weights with decay {_number(config['ema.decay'])}")
    if config.get("compute.precision", "fp32") != "fp32":
        known.append(f"{config['compute.precision']} autocast")
    if config.get("init.weights"):
        known.append(f"beginning with the weights {code(str(config['init.weights']))}")
    if config.get("freeze.parts"):
        known.append(f"with {plain(str(config['freeze.parts']))} frozen")
    return f"Training took {', '.join(known)}." if known else ""


def _optimizer(config: Mapping[str, Scalar]) -> str:
    name = str(config["optim.name"])
    facts = [
        f"{word} {_number(config[key])}"
        for key, word in (
            ("optim.lr", "learning rate"),
            ("optim.momentum", "momentum"),
            ("optim.weight_decay", "weight decay"),
        )
        if config.get(key)
    ]
    return f"{_OPTIMIZERS.get(name, name)} ({', '.join(facts)})" if facts else name


def _schedule(config: Mapping[str, Scalar]) -> str:
    warmup = config.get("schedule.warmup_epochs")
    epochs = "epoch" if warmup == 1 else "epochs"
    ahead = f" after {_number(warmup)} {epochs} of warm-up" if warmup else ""
    return f"a {plain(str(config['schedule.name']))} schedule{ahead}"


def _cells(comparison: Comparison) -> str:
    if not comparison.differing_keys:
        return ""
    keys = ", ".join(code(key) for key in comparison.differing_keys)
    return (
        f"Cells differ in {keys}, with the settings that each choice brings, and in no other "
        "setting."
    )


def _seeds(facts: StudyFacts, comparison: Comparison) -> str:
    seeds = ", ".join(map(str, facts.seeds))
    with_seeds = f"trained with seed{'s'[: len(facts.seeds) != 1]} {seeds}"
    missing = sum(len(cell.missing) for cell in comparison.cells)
    total = sum(len(cell.trainings) for cell in comparison.cells)
    trained = (
        f"to be {with_seeds}, and {missing} of the {total} trainings are in no mean of "
        f"{comparison.metric.title}"
        if missing
        else with_seeds
    )
    return (
        f"Each cell was {trained}; the seed decides the initial weights and the order and the "
        "variations of the images, so cells of one seed see the same images."
    )


def _evaluation(facts: StudyFacts, comparison: Comparison, config: Mapping[str, Scalar]) -> str:
    images = f"{facts.num_images:,} " if facts.num_images else ""
    key = comparison.metric.key
    if "/" in key and not key.startswith("val/"):
        return f"We report {code(key)} as it was recorded at the end of training."
    if facts.evaluate is None or "/" in key:
        crops = config.get("validation.crops", "centre")
        return (
            f"We report the validation of the last epoch on {images}images ({crops} crop); "
            "the same images were looked at during training."
        )
    which = facts.evaluate.get("checkpoint", "last")
    crops = facts.evaluate.get("crops", "centre")
    chosen = (
        "; that checkpoint was chosen on the same images, so its figures are optimistic"
        if which == "best"
        else ""
    )
    return (
        f"The {which} checkpoint of each training was evaluated on {images}validation images, "
        f"each counted once ({crops} crop){chosen}."
    )


def statistics_text(comparison: Comparison) -> str:
    """Return how means, intervals and p values were made."""
    text = "We report mean and standard deviation (n - 1) over seeds."
    compared = [c for c in comparison.cells if c.delta is not None and not c.is_baseline]
    if not compared:
        return text
    tested = sum(c.delta is not None and c.delta.p is not None for c in compared)
    text += f" Differences to {code(comparison.baseline)} are paired by seed"
    if any(c.delta is not None and c.delta.low is not None for c in compared):
        text += (
            "; intervals are 95 % confidence intervals of Student's t distribution with n - 1 "
            "degrees of freedom, not corrected for the number of cells"
        )
    text += "."
    if tested:
        text += (
            " p values are of two-sided paired t tests, corrected with Holm's method for the "
            f"{tested} cell{'s'[: tested != 1]} tested"
        )
        direction = comparison.metric.better
        text += "; a cell is called better or worse where p < 0.05." if direction else "."
    return text + " Below three seeds nothing is concluded."


def hardware_text(facts: StudyFacts) -> str:
    """Return what the trainings ran on, as one sentence; empty where that is not known."""
    if not facts.environments:
        return ""
    machines = list(dict.fromkeys(e.machine for e in facts.environments))
    stacks = list(dict.fromkeys(e.software for e in facts.environments))
    return (
        f"Trainings ran on {facts.workers}, on {' and '.join(map(plain, machines))}, with "
        f"{' and '.join(map(plain, stacks))}."
    )


def published_text(facts: StudyFacts, comparison: Comparison) -> str:
    """Return where the published number comes from and how this study differs from it."""
    seeds = {t.seed for c in comparison.cells if c.published is not None for t in c.trainings}
    ours = "a mean over seeds" if len(seeds) > 1 else "one training"
    differs = [f"ours is {ours}, and how many trainings the published figure is of is not said"]
    if facts.overrides:
        keys = ", ".join(code(key) for key in facts.overrides)
        differs.append(f"this study changed {keys} of the recipe")
    if facts.evaluate is None or facts.evaluate.get("checkpoint", "last") == "last":
        differs.append(
            "ours is the last epoch's network, while published ones are often the best epoch's"
        )
    sources = " ".join(f"{plain(source)}" for source in facts.published)
    return f"Published: {sources} What differs: {'; '.join(differs)}."


def _number(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_value, value))}]"
    return str(value)
