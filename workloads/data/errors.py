"""What is wrong with the data, said so that a person can mend it."""


class DataError(RuntimeError):
    """Data that cannot be used.

    Attributes:
        message: What is wrong, with the path.
        hint: What would be right; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str]]:
        return DataError, (self.message, self.hint)
