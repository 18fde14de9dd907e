"""What a doubling of the scale does to a figure, if the figure follows a power law."""

from collections.abc import Sequence

import numpy as np


def at_each_doubling(values: Sequence[float], figures: Sequence[float]) -> float:
    """What the figure is multiplied by when the value doubles: least squares on logarithms.

    Both greater than 0, a figure for each value. nan for fewer than two.
    """
    if len(values) < 2:
        return float("nan")
    return float(2 ** np.polyfit(np.log2(values), np.log2(figures), 1)[0])
