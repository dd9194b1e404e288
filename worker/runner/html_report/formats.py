"""Numbers as a reader wants them: few digits, a unit, a no-break space between the two."""

import math

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def significant(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, without an exponent: 0.0042, 41.2, 977."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value: 0.9999 counts as 1.00
    decimals = max(0, digits - 1 - exponent)
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS)


def quantity(value: float, unit: str = "") -> str:
    """With a decimal prefix: 41.2 M, 977, 312 kB."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * factor:
            return f"{significant(value / factor)}{SPACE}{prefix}{unit}"
    number = f"{value:.0f}" if float(value).is_integer() else significant(value)
    return f"{number}{SPACE}{unit}" if unit else number


def size(value: int) -> str:
    return quantity(value, "B")


def exact(value: int) -> str:
    """Grouped in thousands: 41 213 952."""
    return f"{value:,}".replace(",", SPACE)


def percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f}{SPACE}%".replace("-", MINUS)


def ratio(share: float) -> str:
    """A share that somebody asked for, or that is held against it: small ones keep their digits, 0.01 %."""
    return percent(share) if share == 0 or abs(share) >= 0.01 else f"{significant(100 * share, 2)}{SPACE}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, signed: +0.28 points."""
    if round(100 * difference, 2) == 0:
        return f"0{SPACE}points"
    return f"{100 * difference:+.2f}{SPACE}points".replace("-", MINUS)


def milliseconds(value: float) -> str:
    return f"{significant(value)}{SPACE}ms"


def times(value: float) -> str:
    return f"{value:.2f}\N{MULTIPLICATION SIGN}"


def seconds(value: float) -> str:
    """0.42 s, 37 s, 4 min 05 s, 2 h 13 min."""
    if value < 10:
        return f"{value:.2g}{SPACE}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min{SPACE}{whole % 60:02}{SPACE}s"
    return f"{whole // 3600}{SPACE}h{SPACE}{whole % 3600 // 60:02}{SPACE}min"


def error(value: float) -> str:
    """A relative error: 3.1·10⁻⁷; 0 stays 0."""
    if value == 0 or not math.isfinite(value):
        return str(value) if value else "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    base = f"10{raised}" if int(exponent) else "1"
    return base if mantissa == "1.0" else f"{mantissa}·{base}" if int(exponent) else mantissa


def shorten(text: str, limit: int = 120) -> str:
    """Names from a model may be of any length: the middle goes."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
