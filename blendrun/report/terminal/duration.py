"""Seconds for people."""


def span(seconds: float) -> str:
    """In whole numbers of the two largest units."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
