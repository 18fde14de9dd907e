"""Writes the Inception network of 2015 as a TensorFlow GraphDef, with the node names of classify_image_graph_def.pb.

TensorFlow runs it as it stands (tests/evaluation/test_inception_graph.py), and ours reads its constants. The scopes
are spelled out by hand, apart from the table of the reader.
"""

import numpy as np
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.proto.types_pb2 import DT_FLOAT, DT_INT32


class GraphWriter:
    """Adds nodes of the 2015 graph; weights come from a state dict in the names of the PyTorch port."""

    def __init__(self, state, scale_after_normalization=True):
        self.state, self.scale = state, scale_after_normalization
        self.graph = GraphDef()
        self.graph.versions.producer = 8  # BatchNormWithGlobalNormalization was deprecated after it

    def node(self, name, op, *inputs, **attributes):
        node = self.graph.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            attr = node.attr[key]
            if isinstance(value, bool):
                attr.b = value
            elif isinstance(value, list):
                attr.list.i.extend(value)
            elif isinstance(value, float):
                attr.f = value
            elif isinstance(value, bytes):
                attr.s = value
            elif key == "N":
                attr.i = value
            else:
                attr.type = value
        return name

    def const(self, name, value):
        value = np.asarray(value)
        dtype = DT_INT32 if value.dtype.kind == "i" else DT_FLOAT
        value = value.astype("<i4" if dtype == DT_INT32 else "<f4")
        self.node(name, "Const", dtype=dtype)
        tensor = self.graph.node[-1].attr["value"].tensor
        tensor.dtype = dtype
        tensor.tensor_shape.CopyFrom(TensorShapeProto(dim=[TensorShapeProto.Dim(size=s) for s in value.shape]))
        tensor.tensor_content = value.tobytes()
        return name

    def unit(self, scope, module, x, stride=1, padding=b"SAME"):
        """Convolution, batch normalisation and ReLU; the node called `scope` is the ReLU."""
        kernel = np.asarray(self.state[f"{module}.conv.weight"]).transpose(2, 3, 1, 0)
        kernel = self.const(f"{scope}/conv2d_params", kernel)
        strides = [1, stride, stride, 1]
        x = self.node(f"{scope}/Conv2D", "Conv2D", x, kernel, T=DT_FLOAT, strides=strides, padding=padding)
        parts = {"moving_mean": "running_mean", "moving_variance": "running_var", "beta": "bias", "gamma": "weight"}
        parts = [self.const(f"{scope}/batchnorm/{t}", self.state[f"{module}.bn.{p}"]) for t, p in parts.items()]
        attributes = dict(T=DT_FLOAT, variance_epsilon=1e-3, scale_after_normalization=self.scale)
        x = self.node(f"{scope}/batchnorm", "BatchNormWithGlobalNormalization", x, *parts, **attributes)
        return self.node(scope, "Relu", x, T=DT_FLOAT)

    def chain(self, scope, module, places, x, stride=1, padding=b"SAME"):
        """conv, conv_1, ... of a scope, the last of them with the stride."""
        for i, place in enumerate(places):
            last = dict(stride=stride, padding=padding) if i == len(places) - 1 else {}
            x = self.unit(f"{scope}/conv_{i}" if i else f"{scope}/conv", f"{module}{place}", x, **last)
        return x

    def pool(self, name, op, x, side=3, stride=1, padding=b"SAME"):
        window = dict(ksize=[1, side, side, 1], strides=[1, stride, stride, 1])
        return self.node(name, op, x, T=DT_FLOAT, padding=padding, **window)

    def join(self, scope, *inputs):
        dim = self.const(f"{scope}/join/concat_dim", np.int32(3))
        return self.node(f"{scope}/join", "Concat", dim, *inputs, T=DT_FLOAT, N=len(inputs))


def inception_graph(state, **options):
    """Serialised bytes: ExpandDims (float images [B, H, W, 3]) to pool_3 and softmax/logits/MatMul."""
    g = GraphWriter(state, **options)
    x = g.node("ExpandDims", "Placeholder", dtype=DT_FLOAT)
    size = g.const("ResizeBilinear/size", np.array([299, 299], np.int32))
    x = g.node("ResizeBilinear", "ResizeBilinear", x, size, T=DT_FLOAT, align_corners=False)
    x = g.node("Sub", "Sub", x, g.const("Sub/y", np.float32(128)), T=DT_FLOAT)
    x = g.node("Mul", "Mul", x, g.const("Mul/y", np.float32(0.0078125)), T=DT_FLOAT)
    x = g.unit("conv", "Conv2d_1a_3x3", x, 2, b"VALID")
    x = g.unit("conv_1", "Conv2d_2a_3x3", x, 1, b"VALID")
    x = g.unit("conv_2", "Conv2d_2b_3x3", x)
    x = g.pool("pool", "MaxPool", x, 3, 2, b"VALID")
    x = g.unit("conv_4", "Conv2d_4a_3x3", g.unit("conv_3", "Conv2d_3b_1x1", x), 1, b"VALID")
    x = g.pool("pool_1", "MaxPool", x, 3, 2, b"VALID")
    x = _block_a(g, "mixed", "Mixed_5b.branch", x)
    x = _block_a(g, "mixed_1", "Mixed_5c.branch", x)
    x = _block_a(g, "mixed_2", "Mixed_5d.branch", x)
    one = g.chain("mixed_3", "Mixed_6a.branch3x3", [""], x, 2, b"VALID")
    two = g.chain("mixed_3/tower", "Mixed_6a.branch3x3dbl", ["_1", "_2", "_3"], x, 2, b"VALID")
    x = g.join("mixed_3", one, two, g.pool("mixed_3/pool", "MaxPool", x, 3, 2, b"VALID"))
    for scope, block in (("mixed_4", "6b"), ("mixed_5", "6c"), ("mixed_6", "6d"), ("mixed_7", "6e")):
        x = _block_c(g, scope, f"Mixed_{block}.branch", x)
    one = g.chain("mixed_8/tower", "Mixed_7a.branch3x3", ["_1", "_2"], x, 2, b"VALID")
    two = g.chain("mixed_8/tower_1", "Mixed_7a.branch7x7x3", ["_1", "_2", "_3", "_4"], x, 2, b"VALID")
    x = g.join("mixed_8", one, two, g.pool("mixed_8/pool", "MaxPool", x, 3, 2, b"VALID"))
    x = _block_e(g, "mixed_9", "Mixed_7b.branch", "AvgPool", x)
    x = _block_e(g, "mixed_10", "Mixed_7c.branch", "MaxPool", x)
    x = g.pool("pool_3", "AvgPool", x, 8, 1, b"VALID")
    x = g.node(
        "pool_3/_reshape", "Reshape", x, g.const("pool_3/_reshape/shape", np.array([-1, 2048], np.int32)), T=DT_FLOAT
    )
    weights = g.const("softmax/weights", np.asarray(state["fc.weight"]).T)
    x = g.node("softmax/logits/MatMul", "MatMul", x, weights, T=DT_FLOAT)
    x = g.node("softmax/logits", "BiasAdd", x, g.const("softmax/biases", state["fc.bias"]), T=DT_FLOAT)
    g.node("softmax", "Softmax", x, T=DT_FLOAT)
    return g.graph.SerializeToString()


def _block_a(g, scope, module, x):
    one = g.chain(scope, f"{module}1x1", [""], x)
    two = g.chain(f"{scope}/tower", f"{module}5x5", ["_1", "_2"], x)
    three = g.chain(f"{scope}/tower_1", f"{module}3x3dbl", ["_1", "_2", "_3"], x)
    pooled = g.pool(f"{scope}/tower_2/pool", "AvgPool", x)
    return g.join(scope, one, two, three, g.chain(f"{scope}/tower_2", f"{module}_pool", [""], pooled))


def _block_c(g, scope, module, x):
    one = g.chain(scope, f"{module}1x1", [""], x)
    two = g.chain(f"{scope}/tower", f"{module}7x7", ["_1", "_2", "_3"], x)
    three = g.chain(f"{scope}/tower_1", f"{module}7x7dbl", ["_1", "_2", "_3", "_4", "_5"], x)
    pooled = g.pool(f"{scope}/tower_2/pool", "AvgPool", x)
    return g.join(scope, one, two, three, g.chain(f"{scope}/tower_2", f"{module}_pool", [""], pooled))


def _block_e(g, scope, module, pool, x):
    one = g.chain(scope, f"{module}1x1", [""], x)
    two = g.chain(f"{scope}/tower", f"{module}3x3", ["_1"], x)
    three = g.chain(f"{scope}/tower_1", f"{module}3x3dbl", ["_1", "_2"], x)
    forks = [
        g.unit(f"{scope}/{tower}/mixed/{conv}", f"{module}{place}", y)
        for tower, y, name in (("tower", two, "3x3_2"), ("tower_1", three, "3x3dbl_3"))
        for conv, place in (("conv", f"{name}a"), ("conv_1", f"{name}b"))
    ]
    pooled = g.pool(f"{scope}/tower_2/pool", pool, x)
    return g.join(scope, one, *forks, g.chain(f"{scope}/tower_2", f"{module}_pool", [""], pooled))
