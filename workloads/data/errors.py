"""What is wrong with the data, said so that a person can mend it."""

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPED_BUT_LINES = {code: text for code, text in _ESCAPED.items() if code != ord("\n")}


def printable(name: str) -> str:
    """Return a name on one line, without what a terminal obeys or no text can hold."""
    return name.translate(_ESCAPED).encode("utf-8", "backslashreplace").decode()


class DataError(RuntimeError):
    """Data that cannot be used.

    Names of files may hold anything; what a terminal would obey is written out in both.

    Attributes:
        message: What is wrong, with the path.
        hint: What would be right; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = map(_without_controls, (message, hint))
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str]]:
        return DataError, (self.message, self.hint)


def _without_controls(text: str) -> str:
    """Return a text of lines as `printable` returns a name."""
    return text.translate(_ESCAPED_BUT_LINES).encode("utf-8", "backslashreplace").decode()
