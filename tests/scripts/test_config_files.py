"""Config files that fail: a line with the file and the line number, and exit code 2."""

import pytest
from script_runs import run
from scripts.test_bad_input import assert_one_line

START = "from configs import digits\n\n"


@pytest.mark.parametrize(
    "text, says",
    [
        ("def get_config(:\n    pass\n", " line 1: SyntaxError: invalid syntax"),
        ("import os\nimport no_such_module\n", " line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        (START + "def get_config():\n    return 1 / 0\n", " line 4: ZeroDivisionError: division by zero"),
        (
            START + "def get_config():\n    return digits.get_config('ledit').modle\n",
            " line 4: AttributeError: ",
        ),
        ("a = '\0'", ": SyntaxError: source code string cannot contain null bytes"),
        ("import sys\nsys.exit(0)\n", " line 2: SystemExit: 0"),
        (START, " defines no get_config"),
        (START + "def get_config():\n    digits.get_config('ledit')\n", ": get_config returned None, and an ml_coll"),
        (START + "def get_config():\n    return {'a': 1}\n", ": get_config returned a dict, and an ml_collections"),
        (START + "get_config = 3\n", ": TypeError: get_config is a int, and a function is needed"),
        (START + "def get_config(size):\n    return size\n", ": TypeError: get_config() missing 1 required positional"),
    ],
    ids=["syntax", "import", "exception", "attribute", "null", "exit", "missing", "none", "dict", "number", "argument"],
)
def test_each_is_one_line(tmp_path, text, says):
    file = tmp_path / "config.py"
    file.write_text(text)
    assert_one_line(run("train.py", f"--config={file}", f"--workdir={tmp_path / 'run'}"), f"--config: {file}{says}")
    assert not (tmp_path / "run").exists()


def test_places_that_hold_no_config(tmp_path):
    for path, says in ((tmp_path, "Is a directory"), (tmp_path / "x.py", "does not exist")):
        assert_one_line(run("train.py", f"--config={path}", f"--workdir={tmp_path / 'run'}"), f"--config: {path}", says)
