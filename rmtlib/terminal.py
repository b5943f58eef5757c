"""What commands print as results."""

import json
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """As JSON, over several lines."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """In columns as wide as their widest cell."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
