"""Numbers as people read them."""

from __future__ import annotations


def milliseconds(time_ns: float) -> str:
    """Write a time in milliseconds as ping(8) does: the larger, the fewer decimals."""
    for decimals, limit in ((3, 1), (2, 10), (1, 100)):
        # Rounded first: 0.9996 is 1.00, and not 1.000.
        text = f"{time_ns / 1e6:.{decimals}f}"
        if float(text) < limit:
            return text
    return whole_milliseconds(time_ns)


def all_milliseconds(*times_ns: float) -> str:
    """Write several, with slashes between them."""
    return "/".join(map(milliseconds, times_ns))


def whole_milliseconds(time_ns: float) -> str:
    """Write a time in milliseconds, without decimals."""
    return f"{time_ns / 1e6:.0f}"


def duration(time_ns: float) -> str:
    """Write how long something took, for a person: `80 ms`, `2.31 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = time_ns / 1e9
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def percent(fraction: float) -> str:
    """Write a percentage with one decimal, or as many as it takes not to claim none or all."""
    percentage = fraction * 100
    for decimals in range(1, 10):
        text = f"{percentage:.{decimals}f}"
        if float(text) not in (0, 100) or percentage in (0, 100):
            break
    return f"{text.rstrip('0').rstrip('.')}%"


def count(number: int, noun: str) -> str:
    """Write a number of something: `1 ping`, `2 pings`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def stamp(at_ns: int | None) -> str:
    """Write a Unix time as ping(8) -D does, to the microsecond; nothing for None."""
    if at_ns is None:
        return ""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return f"[{seconds}.{rest // 1000:06}] "
