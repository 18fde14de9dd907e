"""Floating-point operations of a traced function, before any compiler has seen it."""

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def traced_flops(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Operations of all matrix products and convolutions, over all devices: two for a multiply-add.

    A scan counts as often as it runs, a branch as its dearest arm. What `jax.checkpoint` computes again counts again,
    so the useful work of a step is what this says of it without rematerialisation.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        reduced = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * math.prod(equation.outvars[0].aval.shape) * reduced
    if name == "conv_general_dilated":
        kernel, out_features = equation.invars[1].aval.shape, parameters["dimension_numbers"].rhs_spec[0]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[out_features]
    if name == "cond":
        return max(map(traced_flops, parameters["branches"]))
    times = parameters["length"] if name == "scan" else 1
    if name == "pallas_call":
        times = math.prod(parameters["grid_mapping"].grid)
    inner = [value for value in parameters.values() if isinstance(value, (ClosedJaxpr, Jaxpr))]
    return times * sum(map(traced_flops, inner))
