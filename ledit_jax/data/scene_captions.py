"""The small language of the scenes: what can be asked for, in which words, and which combinations are held out."""

from dataclasses import dataclass
from itertools import product

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (255, 0, 255),
    "white": (255, 255, 255),
}
"""RGB on a black ground: corners of the cube, each at least one whole channel away from the others."""
SHAPES = {"disc": "discs", "square": "squares", "triangle": "triangles", "cross": "crosses"}
"""Singular -> plural."""
RELATIONS = ("above", "left of")
NUMBERS = ("one", "two", "three")
_WAYS = {
    "above": ("{a} above {b}", "{a} over {b}", "{b} below {a}", "{b} under {a}"),
    "left of": ("{a} left of {b}", "{a} to the left of {b}", "{b} right of {a}", "{b} to the right of {a}"),
}
_HELD_OUT_PAIRS, _HELD_OUT_NUMBERS = 5, 4


@dataclass(frozen=True)
class Request:
    """What a caption asks for: (colour, shape) of each figure. With a relation there are two, and it is of the first.

    Without one all figures are alike, and only their number counts.
    """

    figures: tuple[tuple[str, str], ...]
    relation: str = ""

    @property
    def captions(self) -> list[str]:
        """Every way to ask for it; the first is the plainest."""
        if self.relation:
            first, second = (f"a {colour} {shape}" for colour, shape in self.figures)
            return [way.format(a=first, b=second) for way in _WAYS[self.relation]]
        (colour, shape), number = self.figures[0], NUMBERS[len(self.figures) - 1]
        if number == "one":
            return [f"a {colour} {shape}", f"one {colour} {shape}"]
        return [f"{number} {colour} {SHAPES[shape]}", f"{number} {SHAPES[shape]} all {colour}"]


def _requests() -> tuple[dict[str, list[Request]], dict[str, list[Request]]]:
    """(pairs, numbers) by split.

    Of five pairs of figures with a relation one is held out, and of four numbers of figures beyond one: training
    sees every colour with every shape, in every place and number, but never these together.
    """
    pairs: dict[str, list[Request]] = {"train": [], "test": []}
    numbers: dict[str, list[Request]] = {"train": [], "test": []}
    things = list(product(enumerate(COLOURS), enumerate(SHAPES)))
    for ((i, colour), (j, shape)), ((k, other), (m, form)), (n, relation) in product(
        things, things, enumerate(RELATIONS)
    ):
        if colour != other:
            is_held_out = (i + 2 * j + 3 * k + m + n) % _HELD_OUT_PAIRS == 0
            pairs["test" if is_held_out else "train"].append(Request(((colour, shape), (other, form)), relation))
    for ((i, colour), (j, shape)), number in product(things, range(1, len(NUMBERS) + 1)):
        is_held_out = number > 1 and (i + j + number) % _HELD_OUT_NUMBERS == 0
        numbers["test" if is_held_out else "train"].append(Request(((colour, shape),) * number))
    return pairs, numbers


PAIRS, COUNTS = _requests()
"""Requests by split, of two figures with a relation and of a number of equal figures."""
