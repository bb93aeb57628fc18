"""What a worker tells about itself, as plain data that crosses processes as JSON."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        phase: ``train``, ``validate``, ``finished`` or ``stopped``.
        epoch: The epoch under way, from 1.
        step: Optimizer steps done in it, of `steps_per_epoch`.
        global_step: Optimizer steps done since the start, of `total_steps`.
        eta_s: Expected seconds to the end, at this attempt's mean pace, validations included.
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    global_step: int
    total_steps: int
    loss: float | None = None
    images_per_s: float | None = None
    eta_s: float | None = None
    val_top1: float | None = None
    best_top1: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        epochs: Completed epochs.
        stopped: The training left early because it was asked to; it can be resumed.
        weights_sha256: Digest of names, types, shapes and bytes of the final weights.
        skipped_images: Bad images that were left out of the data.
        stopped_early: Early stopping ended it before its last epoch; it is finished.
        skipped_steps: Optimizer steps whose update was left out.
        num_train_images: Images of the whole training split, `steps_per_epoch` or not.
        data_digest: Digest of what identifies the data; empty in results of earlier releases.
    """

    epochs: int
    global_step: int
    stopped: bool
    best_top1: float | None
    best_epoch: int | None
    val_top1: float | None
    val_top5: float | None
    val_loss: float | None
    num_val_images: int
    weights_sha256: str
    skipped_images: int
    stopped_early: bool = False
    skipped_steps: int = 0
    num_train_images: int = 0
    num_classes: int = 0
    data_digest: str = ""
