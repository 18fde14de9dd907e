"""Tables of figures, for pages and terminals."""

from collections.abc import Sequence


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns padded, so that it reads in a terminal as well."""
    widths = [max(len(row[i]) for row in (header, *lines)) for i in range(len(header))]
    rows = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *lines)]
    rows.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {row} |" for row in rows)
