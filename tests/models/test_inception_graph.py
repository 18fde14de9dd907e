"""TensorFlow's own run of a graph in the names of classify_image_graph_def.pb, against ours with its weights."""

import jax
import numpy as np
import pytest
from oracles import fidelity, inception_graph

from ledit_jax.convert.inception import load_inception
from ledit_jax.evaluation.inception_score import inception_score

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed, and runs the graph that this compares with")


@pytest.mark.parametrize("size", [(40, 64), (330, 512)])
def test_forward_pass_equals_tensorflows(tmp_path, size):
    path = tmp_path / "classify_image_graph_def.pb"
    path.write_bytes(inception_graph.inception_graph(fidelity.random_inception()))
    x = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.float32)
    features, spatial, logits = run_graph(path, x)
    network = load_inception(path)
    ours, our_spatial = jax.jit(lambda x: network(x))(x)
    assert features.std() > 1 and spatial.std() > 1
    np.testing.assert_allclose(ours, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(our_spatial, spatial, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours @ network.fc.kernel[...], logits, rtol=1e-4, atol=1e-3)
    p = tf.nn.softmax(logits.astype(np.float64)).numpy()
    score = np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), axis=1)))
    assert inception_score(np.asarray(ours), np.asarray(network.fc.kernel[...])) == pytest.approx(score, rel=1e-4)


def run_graph(path, x):
    """pool_3, the first 7 channels of mixed_6/conv, and the logits without their bias, as ADM's evaluation asks."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        names = ["pool_3:0", "mixed_6/conv:0", "softmax/logits/MatMul:0"]
        outputs = tf.import_graph_def(graph_def, return_elements=names, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            pool, conv, logits = session.run(outputs, {"ExpandDims:0": x})
    return pool.reshape(len(x), -1), conv[..., :7].reshape(len(x), -1), logits
