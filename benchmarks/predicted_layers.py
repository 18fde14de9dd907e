"""Predicts the time of a layer of LEDiT-XL/2 in training, forward and backward: what a change of the blocks is worth.

  python benchmarks/predicted_layers.py --label="what was changed"              one v5e chip, 16 images
  python benchmarks/predicted_layers.py --slice=v5e:4x4 --fsdp=16 --label=...   as many images on each of 16 chips

Four full-attention blocks are compiled alone, in half a minute where a whole step takes many, and their time is
divided by four. Rows go to benchmarks/results/predicted_layers.json under their labels, and a label that is there is
not compiled again. Nothing is run or measured.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.compile_only.hlo import Program  # noqa: E402
from ledit_jax.compile_only.predicted_time import predict_time  # noqa: E402
from ledit_jax.compile_only.topology import describe_devices, parse_topology  # noqa: E402
from ledit_jax.config import Config, MeshConfig  # noqa: E402
from ledit_jax.diffusion import make_process  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402
from ledit_jax.flops import PEAK_BF16_FLOPS  # noqa: E402
from ledit_jax.models import abstract_params, make_network  # noqa: E402
from ledit_jax.models.functional import make_graphdef  # noqa: E402
from ledit_jax.parallel.mesh import make_mesh  # noqa: E402
from ledit_jax.parallel.sharding import batch_sharding, shardings  # noqa: E402

RESULTS = ROOT / "benchmarks/results/predicted_layers.json"
LAYERS, IMAGES = 4, 16


def predict_layer(slice_name: str, fsdp: int, remat: str, side: int) -> dict:
    """side: of the grid, in tokens. Predicted milliseconds of a layer, and the temporaries of all four in GiB."""
    config = Config.from_dict(imagenet256.get_config().to_dict())
    config = config.replaced("model", depth=LAYERS, block_order="sa", remat=remat)
    topology = parse_topology(slice_name)
    mesh = make_mesh(MeshConfig(fsdp=fsdp), describe_devices(topology))
    network = make_network(config, make_process(config))
    graphdef, params, batch = make_graphdef(network), abstract_params(network), IMAGES * mesh.size

    def loss(params, x, condition, weights):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            model = nnx.merge(graphdef, params)
            out, _ = model.run_blocks(x, condition, model.context((side, side), jnp.zeros(batch)))
            return (out.astype(jnp.float32) * weights).sum()

    split, placement = batch_sharding(mesh), shardings(mesh, params)
    whole = (batch, side * side, config.model.width)
    shapes = (whole, config.model.residual), ((batch, config.model.width), config.model.dtype), (whole, "float32")
    arrays = [jax.ShapeDtypeStruct(*shape, sharding=split) for shape in shapes]
    params = jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), params, placement)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), out_shardings=(placement, split, split))
    compiled = gradient.lower(params, *arrays).compile()
    devices = list(mesh.devices.flat)
    peak, coordinates = PEAK_BF16_FLOPS[devices[0].device_kind], [device.coords for device in devices]
    time = predict_time(Program(compiled.as_text()), topology, peak, coordinates)
    values = {name: getattr(time, name) / LAYERS for name in ("generated", "kernels", "network")}
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**30
    settings = {"slice": slice_name, "fsdp": fsdp, "remat": remat, "side": side}
    return settings | values | {"temporaries_gib": memory, "costliest": [dataclasses.asdict(c) for c in time.costliest]}


def main() -> None:
    """Compiles the row if it is missing, prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", help="of the row to make (default: none, only print)")
    parser.add_argument("--slice", default="v5e:1x1", help="as --compile_only takes it")
    parser.add_argument("--fsdp", type=int, default=1, help="mesh.fsdp; the other devices are mesh.data")
    parser.add_argument("--remat", default="dots", choices=("none", "dots", "full"))
    parser.add_argument("--side", type=int, default=16, help="of the grid, in tokens (default: 16, which is 256x256)")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    report = Report(RESULTS, ("jax", "libtpu"))
    if args.label:
        report.get(args.label, lambda: predict_layer(args.slice, args.fsdp, args.remat, args.side))
    rows = [
        [label, row["slice"], str(row["fsdp"]), row["remat"], str(row.get("side", 16))]
        + [f"{row[name]:.2f}" for name in ("generated", "kernels", "network", "temporaries_gib")]
        for label, row in report.results.items()
        if label not in ("date", "versions")
    ]
    header = [
        "what",
        "slice",
        "fsdp",
        "remat",
        "side",
        "generated, ms",
        "kernels, ms",
        "network, ms",
        "temporaries, GiB",
    ]
    print(f"{markdown(header, rows)}\n\n{report.heading()}" if rows else "no row yet: give --label")


if __name__ == "__main__":
    main()
