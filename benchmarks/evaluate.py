"""Times evaluation: images/s through Inception, and each metric at 10K and 50K beside NumPy and scipy.

  python benchmarks/evaluate.py                         everything (about 20 minutes on two cores)
  python benchmarks/evaluate.py --counts=10000 --noscipy

Features are random with Inception's dimensions and a falling spectrum. Each figure comes from a process of its own, so
that its peak memory is its own (resident set, features and libraries included). Precision and recall are against
10,000 reference images. What NumPy and scipy compute has to agree, or the benchmark stops.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledit_jax import cli

COUNTS = flags.DEFINE_list("counts", "10000,50000", "Sample counts.")
SCIPY = flags.DEFINE_bool("scipy", True, "Also time NumPy and scipy.")
IMAGES = flags.DEFINE_integer("images", 128, "Images through Inception; 0 leaves it out.")
CASE = flags.DEFINE_string("case", None, "One measurement, as this script calls itself: METRIC:WHO:COUNT.")
NUM_REFERENCE = 10_000
METRICS = ("statistics", "frechet", "inception score", "precision, recall")


def features(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = (0.5 / np.sqrt(np.arange(1, 2049))).astype(np.float32)
    return np.abs(rng.standard_normal((count, 2048), np.float32) * scales * (1 + 0.1 * seed)) + 0.3


def weights() -> np.ndarray:
    return np.random.default_rng(9).standard_normal((2048, 1008), np.float32) * 0.3


def measure(case: str) -> None:
    """Prints {"seconds", "megabytes", "value"} of one case."""
    metric, who, count = case.split(":")
    run = (ours if who == "ours" else theirs)(metric, int(count))
    start = time.perf_counter()
    value = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": peak, "value": value}))


def ours(metric: str, count: int):
    from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics
    from ledit_jax.evaluation.inception_score import inception_score
    from ledit_jax.evaluation.neighbours import precision_recall

    if metric == "inception":
        return inception_rate(count)
    samples = features(count, 1)
    if metric == "statistics":
        return lambda: float(np.trace(gaussian_statistics(samples)[1]))
    if metric == "frechet":
        sides = *gaussian_statistics(samples), *gaussian_statistics(features(NUM_REFERENCE, 0))
        return lambda: frechet_distance(*sides)
    if metric == "inception score":
        class_weights = weights()
        return lambda: inception_score(samples, class_weights)
    reference = features(NUM_REFERENCE, 0)
    return lambda: precision_recall(reference, samples)


def theirs(metric: str, count: int):
    """The same by NumPy and scipy, as ADM's script has it: sqrtm, and rows of distances to all at once."""
    import scipy.linalg
    import scipy.special

    samples = features(count, 1)
    if metric == "statistics":
        return lambda: float(np.trace(np.cov(samples.astype(np.float64), rowvar=False)))
    if metric == "inception score":
        class_weights = weights()

        def score():
            logits = (samples @ class_weights).astype(np.float64)
            parts = [scipy.special.softmax(logits[i : i + 5000], axis=1) for i in range(0, count, 5000)]
            return float(np.mean([np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), 1))) for p in parts]))

        return score
    reference = features(NUM_REFERENCE, 0)
    if metric == "frechet":
        sides = [(s.mean(0, dtype=np.float64), np.cov(s, rowvar=False)) for s in (samples, reference)]

        def distance():
            (m1, c1), (m2, c2) = sides
            return float(np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real))

        return distance
    return lambda: brute_force(reference, samples)


def brute_force(reference: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    norms = {id(side): np.sum(side**2, axis=1) for side in (reference, samples)}

    def rows(a, b, start):
        block = a[start : start + 1000]
        return np.maximum(norms[id(a)][start : start + 1000, None] + norms[id(b)] - 2 * block @ b.T, 0)

    def radii(side):
        return np.concatenate([np.partition(rows(side, side, i), 3, 1)[:, 3] for i in range(0, len(side), 1000)])

    reach, spread = radii(reference), radii(samples)
    precise, recalled = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    for start in range(0, len(samples), 1000):
        distances = rows(samples, reference, start)
        precise[start : start + 1000] = (distances <= reach).any(1)
        recalled |= (distances <= spread[start : start + 1000, None]).any(0)
    return float(precise.mean()), float(recalled.mean())


def inception_rate(count: int):
    import jax
    from flax import nnx

    from ledit_jax.evaluation.features import FeatureExtractor
    from ledit_jax.models.inception import Inception

    extractor = FeatureExtractor(Inception(nnx.Rngs(0)), batch_size=32)
    size = extractor.batch_size
    images = np.random.default_rng(0).integers(0, 256, (size, 256, 256, 3), dtype=np.uint8)
    extractor(images)  # compiled before it is timed

    def run():
        for _ in range(max(1, count // size)):
            extractor(images)
        return max(1, count // size) * size, jax.devices()[0].device_kind

    return run


def call(metric: str, who: str, count: int) -> dict:
    command = [sys.executable, __file__, f"--case={metric}:{who}:{count}"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    if CASE.value:
        measure(CASE.value)
        return
    if IMAGES.value:
        found = call("inception", "ours", IMAGES.value)
        count, kind = found["value"]
        rate = count / found["seconds"]
        print(
            f"Inception, 256x256, float32, {kind}: {rate:.1f} images/s, peak {found['megabytes']:.0f} MB\n",
            flush=True,
        )
    print(
        "| metric | samples | ours, s | peak, MB | NumPy and scipy, s | peak, MB |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for count in map(int, COUNTS.value):
        total = 0.0
        for metric in METRICS:
            mine = call(metric, "ours", count)
            total += mine["seconds"] * (2 if metric in ("statistics", "frechet") else 1)  # FID and sFID
            cells = f"| {metric} | {count} | {mine['seconds']:.1f} | {mine['megabytes']:.0f} "
            if SCIPY.value:
                other = call(metric, "theirs", count)
                np.testing.assert_allclose(mine["value"], other["value"], rtol=2e-3, atol=2e-3)
                cells += f"| {other['seconds']:.1f} | {other['megabytes']:.0f} |"
            else:
                cells += "| | |"
            print(cells, flush=True)
        print(f"| all five figures, without the network | {count} | {total:.1f} | | | |", flush=True)


if __name__ == "__main__":
    cli.run(main, __doc__)
