"""Evaluations whose number would mean nothing, said so that a person can mend it."""


class EvaluationError(RuntimeError):
    """Weights and data that do not belong together, or ranks that see different ones.

    Attributes:
        message: What is wrong.
        hint: What would be right; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["EvaluationError"], tuple[str, str]]:
        return EvaluationError, (self.message, self.hint)
