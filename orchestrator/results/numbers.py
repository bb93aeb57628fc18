"""Numbers of a comparison as text: rounded as far as they mean something, with their units."""

from orchestrator.results.comparison import Column, Delta, Estimate

NOTHING = "-"
_COUNTS = ("model/parameters", "model/macs")
_TIME = "time/train_s"
_LONG, _SMALL, _FEW = 1e9, 0.01, 10.0


def number_text(value: float, column: Column) -> str:
    """Return a value of a column: `98.06`, `0.0712`, `1.25M`, `1,204`; a time with its unit."""
    if column.key in _COUNTS:
        return _count(value)
    if column.key == _TIME:
        return _time(value)
    return _decimal(value, _decimals(value, column))


def estimate_text(found: Estimate | None, column: Column, *, sign: str = "±") -> str:
    """Return `98.06 ± 0.21`, the mean alone where it is of one, a dash where there is none."""
    if found is None:
        return NOTHING
    mean = number_text(found.mean, column)
    if found.deviation is None or (column.key in _COUNTS and not found.deviation):
        return mean
    if column.key == _TIME:
        divisor, unit, decimals = _time_unit(found.mean)
        return f"{mean.split()[0]} {sign} {found.deviation / divisor:.{decimals}f} {unit}"
    if column.key in _COUNTS:
        return f"{mean} {sign} {_count(found.deviation)}"
    return f"{mean} {sign} {_decimal(found.deviation, _decimals(found.mean, column))}"


def delta_text(delta: Delta, column: Column) -> str:
    """Return a difference with its sign."""
    return signed(delta.mean, column)


def interval_text(delta: Delta, column: Column) -> str:
    """Return `[+0.40, +1.76]`, or a dash where there is no interval."""
    if delta.low is None or delta.high is None:
        return NOTHING
    return f"[{signed(delta.low, column)}, {signed(delta.high, column)}]"


def signed(value: float, column: Column) -> str:
    """Return a difference between two values of a column with its sign."""
    text = number_text(abs(value), column)
    is_nothing = not any(digit in text for digit in "123456789")
    return text if is_nothing else ("+" if value > 0 else "-") + text


def p_text(p: float | None) -> str:
    """Return a p value: `0.021`, `< 0.001`, or a dash."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def heading(column: Column) -> str:
    """Return the column's title with its unit; a time says its unit in each row."""
    unit = "" if column.key == _TIME else column.unit
    return f"{column.title} {unit}".strip()


def _decimals(value: float, column: Column) -> int | None:
    """Return how many digits after the point a value has; None for four that count, in all."""
    size = abs(value)
    if size >= _LONG or (column.decimals is None and 0 < size < _SMALL):
        return None
    if column.decimals == 0 and 0 < size < _FEW:
        return 2
    return 4 if column.decimals is None else column.decimals


def _decimal(value: float, decimals: int | None) -> str:
    if decimals is None or abs(value) >= _LONG:
        return f"{value:.4g}"
    return f"{value:{',' if decimals == 0 else ''}.{decimals}f}"


def _count(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # 999,700 is 1M, not 1e+03k
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def _time(seconds: float) -> str:
    divisor, unit, decimals = _time_unit(seconds)
    return f"{seconds / divisor:.{decimals}f} {unit}"


def _time_unit(seconds: float) -> tuple[float, str, int]:
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return {"d": 86_400.0, "h": 3_600.0, "min": 60.0}[unit], unit, 1
    return 1.0, "s", 1 if seconds < 100 else 0
