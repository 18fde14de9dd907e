"""How a command ends: a cause outside the program is one line, and only a fault of ours is a traceback."""

import subprocess

import pytest
from script_runs import run

FAIL = """
import errno, os, resource, sys
from ledit_jax import cli
kind, folder = sys.argv[1:]
sys.argv[1:] = []

def fail():
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))  # what it says is a file too
        open(f"{folder}/x", "wb", buffering=0).write(b"a" * 9999)
        open(f"{folder}/x", "ab", buffering=0).write(b"a")
    if kind == "full":
        with open("/dev/full", "wb") as file:
            file.write(b"a")
    if kind == "missing":
        open(f"{folder}/nothing/x", "wb")
    if kind == "immutable":
        from ledit_jax.files import write_whole
        from pathlib import Path
        os.replace = lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
        write_whole(Path(folder, "x"), "a")
    if kind == "memory":
        raise MemoryError
    if kind == "library":
        raise ValueError(f"OUT_OF_RANGE: Error writing {folder}/c: {os.strerror(errno.ENOSPC)} [os_error_code='28']")
    raise KeyError("ours")

cli.run(fail, "A test.")
"""


def end(kind: str, folder) -> subprocess.CompletedProcess:
    script = folder / "run.py"
    script.write_text(FAIL)
    return run(str(script), kind, str(folder))


@pytest.mark.parametrize(
    "kind, says",
    [
        ("limit", "File too large"),
        ("full", "No space left on device ("),
        ("missing", "nothing/x: No such file or directory"),
        ("immutable", "x cannot be written (Operation not permitted)"),
        ("memory", "memory ran out"),
        ("library", "No space left on device: OUT_OF_RANGE"),
    ],
)
def test_causes_outside_are_one_line(tmp_path, kind, says):
    result = end(kind, tmp_path)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert says in result.stderr


def test_an_arrow_on_a_terminal_without_arrows_is_a_question_mark(tmp_path):
    script = tmp_path / "run.py"
    script.write_text("from ledit_jax import cli\ncli.run(lambda: print('FID \u2193'), 'A test.')\n", encoding="utf-8")
    result = run(str(script), encoding="ascii")
    assert (result.returncode, result.stdout, result.stderr) == (0, "FID ?\n", "")


def test_a_fault_of_ours_is_a_traceback_that_asks_to_be_reported(tmp_path):
    result = end("ours", tmp_path)
    assert result.returncode == 1 and "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error: KeyError above is a fault of ledit_jax: please report this, with all of it"
    )


def test_a_signal_where_python_drops_what_is_raised_still_ends_it(tmp_path):
    """As in jax's callback of the garbage collector, which every signal to a busy program may meet."""
    script = tmp_path / "run.py"
    script.write_text(
        "import gc, signal, time\nfrom ledit_jax import cli\nsent = []\n"
        "def interrupt(*_):\n    sent or sent.append(signal.raise_signal(signal.SIGTERM))\n"
        "def main():\n    gc.callbacks.append(interrupt)\n    gc.collect()\n    time.sleep(600)\n"
        "cli.run(main, 'A test.')\n"
    )
    result = run(str(script), timeout=60)
    assert result.returncode == 1
    assert result.stderr == "error: stopped by SIGTERM: what is done is kept, and the same command goes on\n"
