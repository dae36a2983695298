"""Renders the results: one table for each kind of workload, with the ratio of each value to the reference."""

from .proxies import REFERENCE

COLUMNS = {
    "requests": [
        ("per_second", "requests/s", "{:,.0f}"),
        ("p50", "p50 µs", "{:,.0f}"),
        ("p99", "p99 µs", "{:,.0f}"),
        ("p999", "p99.9 µs", "{:,.0f}"),
        ("cpu_us", "CPU µs/request", "{:,.1f}"),
        ("rss_mb", "RSS MB", "{:,.1f}"),
    ],
    "scaling": [
        ("one_us", "one worker, CPU µs/request", "{:,.1f}"),
        ("two_us", "two", "{:,.1f}"),
        ("carries", "two cores carry", "{:.2f}×"),
        ("one_per_second", "one, requests/s", "{:,.0f}"),
        ("two_per_second", "two", "{:,.0f}"),
        ("two_cores", "cores used by two", "{:.2f}"),
    ],
    "latency": [("added_us", "added p50 µs", "{:,.0f}"), ("direct_us", "direct p50 µs", "{:,.0f}")],
    "events": [
        ("per_second", "events/s", "{:,.0f}"),
        ("cpu_us", "CPU µs/event", "{:,.2f}"),
        ("rss_mb", "RSS MB", "{:,.1f}"),
    ],
    "idle": [("kb_each", "KB each", "{:,.1f}"), ("rss_mb", "RSS MB", "{:,.1f}")],
}
# Values without a ratio: they are the same for all proxies, or they are not properties of a proxy.
WITHOUT_RATIO = {"direct_us", "carries", "one_per_second", "two_per_second", "two_cores"}


def cell(figures, reference, name, form):
    text = form.format(figures[name])
    if reference and reference is not figures and name not in WITHOUT_RATIO and reference[name] > 0:
        text += f" ({figures[name] / reference[name]:.2f}×)"
    return text


def rows(kind, work, by_proxy):
    reference = by_proxy.get(REFERENCE)
    for proxy, figures in by_proxy.items():
        if isinstance(figures, str):
            yield f"| {work} | {proxy} | {figures} |" + " |" * (len(COLUMNS[kind]) - 1)
        else:
            usual = reference if isinstance(reference, dict) else None
            cells = [cell(figures, usual, name, form) for name, _, form in COLUMNS[kind]]
            yield f"| {work} | {proxy} | {' | '.join(cells)} |"


def markdown(results, notes):
    """Returns Markdown. `results` maps kind → workload → proxy → values, or a text if there are no values."""
    lines = [*notes, ""]
    for kind, works in results.items():
        if works:
            titles = [title for _, title, _ in COLUMNS[kind]]
            lines += [f"| workload | proxy | {' | '.join(titles)} |", "| --- " * 2 + "| ---: " * len(titles) + "|"]
            for work, by_proxy in works.items():
                lines += rows(kind, work, by_proxy)
            lines.append("")
    return "\n".join(lines)
