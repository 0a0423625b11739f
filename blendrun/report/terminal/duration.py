"""Seconds for people."""


def span(seconds: float) -> str:
    """In whole numbers of the two largest units; without the smaller one where there is none of it."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    large, small = (f"{whole // 60} min", f"{whole % 60} s")
    if whole >= 3600:
        large, small = (f"{whole // 3600} h", f"{whole % 3600 // 60} min")
    return large if small.startswith("0 ") else f"{large} {small}"


def span_range(low: float, high: float) -> str:
    """Seconds that are not known exactly."""
    if high < 1:
        return "less than a second"
    least, most = span(low), span(high)
    return f"about {least}" if least == most else f"{least} to {most}"


def left_text(left: tuple[float, float] | None, planned: float | None) -> str:
    """What a run still takes. left: least and most seconds; None where nobody knows yet. planned: of all of it."""
    if left is not None:
        return span_range(*left)
    return f"not known yet (plan: {span(planned)})" if planned is not None else "not known yet"
