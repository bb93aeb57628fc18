"""What is wrong with a network or a file of one, said so that a person can mend it."""


class ModelError(RuntimeError):
    """A network, or a file of one, that cannot be used as asked.

    Attributes:
        message: What is wrong, with the name or the path.
        hint: What would be right; may be empty.
        exit_code: What the command ends with: 2 wrong usage, 5 not found, 6 conflict.
    """

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 2) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
