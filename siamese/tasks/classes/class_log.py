"""What a classification run leaves behind beside the common log."""

from __future__ import annotations

from siamese.training.loop import Figures
from siamese.training.monitoring import RunLog, written

_FIGURES = ("validation_error", "validation_loss", "test_error", "test_loss")


class ClassLog(RunLog):
    """Watches a classification run."""

    def line(self, row: Figures) -> str:
        """Errors in per cent; the test's is marked as a curve that selects nothing."""
        words = [f"training error {row['train_error']:.2f} %"]
        if "validation_error" in row:
            words.append(f"validation error {row['validation_error']:.2f} %")
        if "test_error" in row:
            words.append(f"test error {row['test_error']:.2f} % (selects nothing)")
        words.append(f"{row['seconds']:.0f} s")
        return ", " + ", ".join(words)

    @written
    def finish(self, epoch: int) -> None:
        """Hyper-parameters with the figures of the epoch that counts; closes the log."""
        prefix = "best" if self.settings.data.validation else "last"
        self.add_settings(epoch, _FIGURES, prefix)
        self.close()
