"""From a signal to the driver to a word that the workers hear."""

import signal
from types import FrameType

from workloads.worker.paths import JobPaths


class StopSignal:
    """Turns SIGTERM into a file that the workers poll; the attempt then ends by itself."""

    def __init__(self, paths: JobPaths) -> None:
        self._paths = paths
        self.is_set = False

    def install(self) -> None:
        """Take over SIGTERM and SIGINT from `ray.init`, which takes them for itself."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def turn_to(self, paths: JobPaths) -> None:
        """Speak to the workers of another job from now on, of a signal that came before too."""
        self._paths = paths
        if self.is_set:
            paths.stop.touch()

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self.is_set = True
        self._paths.stop.touch()
