"""Captions a second through CLIP's text encoder: ours beside transformers', at ViT-L/14's size with random weights.

  python benchmarks/text_encoder.py      prints the table, writes benchmarks/results/text_encoder.json

Both sides have the same weights, ids and batches, in float32 on the same cores, and must agree to 1e-4 before anything
is timed. They take turns, so that a busy machine slows both; a ratio is the median of the ratios of neighbours, above 1
where ours is faster. Processor seconds are counted as well, which other work changes least. On one core, so that no
thread waits for another that is kept from running. Ids are random: the time of a token does not depend on which it is.
Nothing is downloaded. It takes about a minute, and is run anew after a kill.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledit_jax import cli
from ledit_jax.errors import ConfigError
from ledit_jax.files import write_json
from ledit_jax.progress import progress_bar

RESULTS = Path(__file__).parent / "results/text_encoder.json"
CORES = flags.DEFINE_integer("cores", 1, "Processor cores that both sides may use.", lower_bound=1)
BATCH = flags.DEFINE_list("batch_sizes", "8", "Captions at a time, one size or several.")
TURNS = flags.DEFINE_integer("turns", 5, "Timed batches of each side.", lower_bound=1)
JSON = flags.DEFINE_string("json", str(RESULTS), "Where to keep the figures.")


def make_sides():
    """(ours, transformers'): functions of ids int32 [B, 77] to states [B, 77, 768]."""
    import torch
    import transformers
    from flax import nnx

    from ledit_jax.convert.clip import text_table
    from ledit_jax.convert.tables import apply_table, flatten_params, param_shapes, unflatten_params
    from ledit_jax.models.clip_text import CLIPText, CLIPTextConfig

    settings = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    torch.manual_seed(0)
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**settings)).eval()
    config = CLIPTextConfig()
    graphdef, like = nnx.split(nnx.eval_shape(lambda: CLIPText(config, nnx.Rngs(0))), nnx.Param)
    shapes = param_shapes(flatten_params(like))
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    params = unflatten_params(apply_table(text_table(shapes, ""), state, shapes), like)
    run = jax.jit(lambda params, ids: nnx.merge(graphdef, params)(ids))

    def ours(ids):
        return np.asarray(run(params, ids))

    def peer(ids):
        with torch.inference_mode():
            return theirs(torch.from_numpy(ids).long()).last_hidden_state.numpy()

    return ours, peer


def measure(ours, peer, batch_size: int, done) -> dict[str, float]:
    """Rates by both clocks, and the ratios; calls done() after each batch of a side."""
    rng = np.random.default_rng(batch_size)
    ids = rng.integers(0, 49406, (batch_size, 77), dtype=np.int32)
    start = time.perf_counter()
    mine = ours(ids)
    first = time.perf_counter() - start
    done()
    np.testing.assert_allclose(mine, peer(ids), atol=1e-4 * np.abs(mine).max())
    done()
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    seconds = {clock: {"ours": [], "transformers": []} for clock in clocks}
    for turn in range(TURNS.value):
        sides = [("ours", ours), ("transformers", peer)]
        for name, run in sides if turn % 2 else sides[::-1]:
            before = {clock: read() for clock, read in clocks.items()}
            run(ids)
            for clock, read in clocks.items():
                seconds[clock][name].append(read() - before[clock])
            done()
    found = {"batch_size": batch_size, "first_call_seconds": first}
    for clock, sides in seconds.items():
        found |= {f"{name}_captions_per_{clock}_second": batch_size / statistics.median(sides[name]) for name in sides}
        pairs = zip(sides["ours"], sides["transformers"], strict=True)
        found[f"{clock}_ratio"] = statistics.median(theirs / mine for mine, theirs in pairs)
    return found


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: CORES.value])  # before the libraries start threads
    import torch
    import transformers

    sizes = cli.whole_numbers(BATCH) or [0]
    if min(sizes) < 1:
        raise ConfigError(f"--batch_sizes={','.join(BATCH.value)} must be 1 or more, each of them")
    with progress_bar("text encoder", 1 + len(sizes) * (2 + 2 * TURNS.value), "batch") as bar:
        sides = make_sides()
        bar.update()
        results = [measure(*sides, size, bar.update) for size in sizes]
    print("| captions at a time | clock | ours, captions/s | transformers, captions/s | ratio |\n|---|---|---|---|---|")
    for row in results:
        for clock in ("wall", "processor"):
            rates = [f"{row[f'{name}_captions_per_{clock}_second']:.2f}" for name in ("ours", "transformers")]
            print(f"| {row['batch_size']} | {clock} | {' | '.join(rates)} | {row[f'{clock}_ratio']:.2f} |")
    versions = {"jax": jax.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    command = f"python benchmarks/text_encoder.py --cores={CORES.value} --turns={TURNS.value} --batch_sizes="
    found = {"command": command + ",".join(BATCH.value), "device": jax.devices()[0].device_kind}
    write_json(Path(JSON.value), found | {"versions": versions, "results": results})


if __name__ == "__main__":
    cli.run(main, __doc__)
