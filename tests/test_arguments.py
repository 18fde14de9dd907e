"""Arguments of the wrong kind to what the package offers: an error of its own, in one line that names the argument."""

import json

from script_runs import run

SCRIPT = """
import json, pathlib, sys
from tiny import noisy_params, tiny_config
from ledit_jax import LEDiTPipeline, load_model
from ledit_jax.config import model_preset
from ledit_jax.diffusion import create_diffusion
from ledit_jax.errors import LEDiTError
from ledit_jax.ops.scan_masks import scan_mask
from ledit_jax.training.loop import train
from ledit_jax.weights import export_weights

folder = pathlib.Path(sys.argv[1])
(folder / "file").write_text("")
config = tiny_config()
pipe = LEDiTPipeline(config, noisy_params(config))
calls = {
    "condition=3": lambda: pipe(3),
    "condition={'a': 1}": lambda: pipe({"a": 1}),
    "condition=None": lambda: pipe(None),
    "condition='207'": lambda: pipe("207"),
    "class_labels=[None]": lambda: pipe([None]),
    "class_labels=[1.5]": lambda: pipe([1.5]),
    "a record has image and no label": lambda: pipe.network.condition.from_record({"image": 1}, None),
    "a record's label is 'cat'": lambda: pipe.network.condition.from_record({"label": "cat"}, None),
    "options=3": lambda: pipe([1], options=3),
    "None is no name of a checkpoint": lambda: LEDiTPipeline.from_checkpoint(None),
    "3 is no name of a checkpoint": lambda: load_model(3),
    "timestep_respacing='1.5'": lambda: create_diffusion([1.5]),
    "timestep_respacing=250": lambda: create_diffusion(250),
    "a grid of 2.5 x 4": lambda: scan_mask("a", 2.5, 4),
    "scan None": lambda: scan_mask(None, 4, 4),
    "model name None": lambda: model_preset(None),
    "model.widht": lambda: model_preset("LEDiT-XL/2", widht=3),
    "None is no name": lambda: train(config, None),
    "file/x cannot be written": lambda: export_weights(folder / "file" / "x", pipe.params, config, 1),
    "/proc/x cannot be written": lambda: export_weights("/proc/x", pipe.params, config, 1),
}
said = {}
for words, call in calls.items():
    try:
        said[words] = f"accepted: {call()!r:.80}"
    except LEDiTError as error:
        said[words] = str(error)
    except Exception as error:
        said[words] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def test_each_is_refused_in_a_line_that_names_it(tmp_path):
    """In a process of its own: here, annotations are checked too, and would speak first."""
    (tmp_path / "calls.py").write_text(SCRIPT)
    result = run(str(tmp_path / "calls.py"), str(tmp_path))
    assert result.returncode == 0, result.stderr
    for words, said in json.loads(result.stdout.splitlines()[-1]).items():
        assert words in said and "Error: " not in said and "\n" not in said and len(said) < 400, (words, said)


def test_a_respacing_may_be_what_dits_users_pass():
    from ledit_jax.diffusion import create_diffusion

    assert create_diffusion(None).num_timesteps == 1000
    assert list(create_diffusion([10, 20]).timestep_map) == list(create_diffusion("10,20").timestep_map)
