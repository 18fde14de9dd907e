"""torch-fidelity, someone else's FID, Inception Score, precision and recall, and its Inception network of 2015.

Its modules import torchvision, for data sets and networks that nobody touches here, and torchvision wants a build that
fits torch's. Where there is none, empty modules stand in while torch-fidelity is imported.
"""

import importlib.util
import sys
import types
from unittest import mock

import numpy as np
import torch
from torch import Tensor


def _stand_ins() -> dict[str, types.ModuleType]:
    """Modules for torchvision and what is imported of it; none where it is installed."""
    if importlib.util.find_spec("torchvision"):
        return {}
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, modules[name])
    modules["torchvision.datasets"].__dict__.update(CIFAR10=object, CIFAR100=object, STL10=object)
    return modules


_STAND_INS = _stand_ins()
sys.modules.update(_STAND_INS)
from torch_fidelity import feature_extractor_inceptionv3 as inception_v3  # noqa: E402
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

for _name in _STAND_INS:
    del sys.modules[_name]  # whoever asks for torchvision later is told that there is none


def fid(features1: np.ndarray, features2: np.ndarray) -> float:
    """From features [N, D]; its root wants more samples than dimensions."""
    statistics = [fid_features_to_statistics(torch.from_numpy(f).double()) for f in (features1, features2)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def inception_score(logits: np.ndarray, splits: int) -> float:
    """From logits [N, K] in equal splits, in the order they come."""
    return isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=False)["inception_score_mean"]


def precision_recall(reference: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """(precision, recall) with three neighbours, in float64."""
    generated, real = (torch.from_numpy(f).double() for f in (samples, reference))
    metrics = prc_features_to_metric(generated, real, prc_neighborhood=3, verbose=False)
    return metrics["precision"], metrics["recall"]


def inception_network(state: dict[str, Tensor] | None = None) -> inception_v3.FeatureExtractorInceptionV3:
    """Its network with the weights of `state`; without one, with PyTorch's initial ones."""
    kind = inception_v3.FeatureExtractorInceptionV3
    # It would download the published weights.
    with (
        mock.patch.object(inception_v3, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(kind, "load_state_dict"),
    ):
        network = kind("inception", ["2048", "logits_unbiased"])
    if state is not None:
        network.load_state_dict(state)
    return network


def random_inception(seed: int = 0) -> dict[str, Tensor]:
    """Random weights in the published names and shapes, scaled so that signals neither die nor grow."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, value in inception_network().state_dict().items():
        normal, uniform = (draw(value.shape, generator=generator) for draw in (torch.randn, torch.rand))
        match name.split(".")[-2:]:
            case ["conv", "weight"]:
                state[name] = normal * (2 / value[0].numel()) ** 0.5
            case ["bn", "weight"]:
                state[name] = 1 + 0.2 * uniform
            case ["bn", "bias"]:
                state[name] = 0.2 * normal
            case ["bn", "running_mean"]:
                state[name] = 0.1 * normal
            case ["bn", "running_var"]:
                state[name] = 0.7 + 0.5 * uniform
            case ["fc", kind]:
                state[name] = normal * (0.01 if kind == "weight" else 1.0)
    return state


def inception_features(state: dict[str, Tensor], images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pool_3 [B, 2048], spatial [B, 17, 17, 192], logits without bias [B, 1008]) of uint8 images [B, H, W, 3].

    spatial is the 1x1 branch of Mixed_6d, whose first 7 channels sFID takes.
    """
    network, seen = inception_network(state), []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        pool, logits = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    return pool.numpy(), seen[0].permute(0, 2, 3, 1).numpy(), logits.numpy()


def resize(images: np.ndarray) -> np.ndarray:
    """TensorFlow 1's bilinear resize of images [B, H, W, 3] to 299 x 299."""
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    resized = interpolate_bilinear_2d_like_tensorflow1x(nchw, size=(299, 299), align_corners=False)
    return resized.permute(0, 2, 3, 1).numpy()
