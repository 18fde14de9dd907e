"""Whole files and folders of pieces: what a failure leaves, what is on the disk before a rename, what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from script_runs import PROCESSES

from ledit_jax.errors import DataError, OutputError
from ledit_jax.files import (
    PieceFolder,
    check_writable,
    read_json,
    recipe_path,
    whole,
    whole_file,
    write_json,
    written_aside,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_take_their_names_at_the_end(tmp_path):
    file, folder = tmp_path / "new" / "x.txt", tmp_path / "new" / "x"
    for content in ("first", "second"):
        with written_aside(file) as aside:
            aside.write_text(content)
            assert aside.parent == file.parent and (not file.exists() or file.read_text() == "first")
        with written_aside(folder) as aside:
            aside.mkdir()
            (aside / content).write_text(content)
            assert not (folder / content).exists()
        assert file.read_text() == content and names(folder) == [content] and names(tmp_path / "new") == ["x", "x.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("mine")])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there(tmp_path, kind, error):
    place = tmp_path / "x"
    place.write_text("old") if kind == "file" else (place / "old").mkdir(parents=True)
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught, written_aside(place) as aside:
        aside.write_text("half") if kind == "file" else (aside / "half").mkdir(parents=True)
        raise error
    assert names(tmp_path) == ["x"] and (place.read_text() == "old" if kind == "file" else names(place) == ["old"])
    if expected is OutputError:
        message = str(caught.value)
        assert message.startswith(f"{place} cannot be written (No space left on device; ")
        assert message.endswith(" MiB are free there): make room and run it again, or choose another place")


def test_a_limit_of_the_file_size_is_one_line_and_leaves_what_was_there(tmp_path):
    """As a full disk does; a process of its own, since a limit stays."""
    (tmp_path / "x").write_text("old")
    script = f"""
import pathlib, resource
from ledit_jax.errors import OutputError
from ledit_jax.files import whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_file(pathlib.Path({str(tmp_path / "x")!r})) as file:
        file.write(bytes(2000))
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 'x'} cannot be written (File too large; ")
    assert done.stdout.count("\n") == 1 and (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


def test_a_folder_comes_back_where_the_new_one_cannot_take_its_name(tmp_path, monkeypatch):
    (tmp_path / "x" / "old").mkdir(parents=True)
    replace = os.replace

    def refuse(source, target):
        if ".partial" in str(source):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(whole.os, "replace", refuse)
    with pytest.raises(OutputError, match="Input/output error"), written_aside(tmp_path / "x") as aside:
        aside.mkdir()
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["old"]


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / ".partial-x").write_bytes(b"half")
    with written_aside(tmp_path / "x") as aside:
        (aside / "a").mkdir(parents=True)
    assert names(tmp_path) == ["x"]


def test_content_reaches_the_disk_before_the_name_and_the_name_afterwards(tmp_path, monkeypatch):
    """Or a power cut leaves an empty file with the final name."""
    done = []

    def watch(name, describe):
        inner = getattr(os, name)
        monkeypatch.setattr(whole.os, name, lambda *a: (done.append((name, describe(*a))), inner(*a))[1])

    watch("fsync", lambda descriptor: os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
    watch("sync", lambda: None)
    watch("replace", lambda source, target: os.path.basename(target))
    with whole_file(tmp_path / "x") as file:
        file.write(b"content")
    assert done == [("fsync", ".partial-x"), ("replace", "x"), ("fsync", tmp_path.name)]
    done.clear()
    with written_aside(tmp_path / "y") as aside:
        aside.mkdir()
        (aside / "content").write_text("content")
    assert done == [("sync", None), ("replace", "y"), ("fsync", tmp_path.name)]


def _write_often(path):
    for _ in range(50):
        write_json(path, {"written by": os.getpid()})


def test_processes_may_write_the_same_json_at_once(tmp_path):
    processes = [PROCESSES.Process(target=_write_often, args=(tmp_path / "x.json",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert names(tmp_path) == ["x.json"] and read_json(tmp_path / "x.json")["written by"] in [p.pid for p in processes]


@pytest.mark.parametrize(
    "content, kind, message",
    [
        (None, dict, "x.json cannot be read (No such file or directory)"),
        ("{", dict, "x.json is damaged or no JSON (Expecting property name"),
        (b"\xff\xfe", dict, "x.json is damaged or no JSON"),
        ("[1]", dict, "x.json holds a list, and a dict is needed"),
        ("{}", list, "x.json holds a dict, and a list is needed"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, kind, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_json(path, kind)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path / "file" / "x", "Not a directory|File exists"), (tmp_path, "it is a folder")):
        with pytest.raises(OutputError, match=f"cannot be written .*({message})"):
            check_writable(path)
    check_writable(tmp_path / "new" / "x")
    assert names(tmp_path / "new") == []


def test_the_recipe_lies_beside_the_samples(tmp_path):
    assert recipe_path(tmp_path / "x.npz") == recipe_path(str(tmp_path / "x")) == tmp_path / "x.recipe.json"


SETTINGS = {"recipe": {"seed": 0, "size": (8, 12)}, "shard_size": 4}


class TestPieceFolder:
    def open(self, folder, settings=None, **options):
        return PieceFolder.open(folder / "pieces", "note.json", settings or SETTINGS, **options)

    def test_is_gone_on_with(self, tmp_path):
        pieces = self.open(tmp_path)
        with pieces.write("1.npy") as file:
            np.save(file, np.arange(3))
        with pytest.raises(KeyboardInterrupt), pieces.write("2.npy") as file:
            np.save(file, np.arange(4))
            raise KeyboardInterrupt
        pieces = self.open(tmp_path)
        assert pieces.missing(["0.npy", "1.npy", "2.npy"]) == ["0.npy", "2.npy"]
        np.testing.assert_array_equal(pieces.read("1.npy", np.load), [0, 1, 2])
        assert names(tmp_path / "pieces") == ["1.npy", "note.json"]
        assert json.loads(pieces.path("note.json").read_text()) == {
            "recipe": {"seed": 0, "size": [8, 12]},
            "shard_size": 4,
        }

    def test_other_settings_are_named(self, tmp_path):
        self.open(tmp_path)
        other = {"recipe": {"seed": 1, "size": (8, 12), "steps": 5}, "shard_size": 4}
        with pytest.raises(OutputError, match=r"\(recipe.seed=0 there, 1 here; recipe.steps=None there, 5 here\)"):
            self.open(tmp_path, other)
        with pytest.raises(OutputError, match=r"\(shard_size=4 there, None here\)"):
            self.open(tmp_path, {"recipe": SETTINGS["recipe"]})

    def test_a_message_stays_short(self, tmp_path):
        self.open(tmp_path, {name: list(range(1000)) for name in "abcde"})
        with pytest.raises(OutputError, match=r"and 2 more\)") as caught:
            self.open(tmp_path, dict.fromkeys("abcde", 0))
        assert len(str(caught.value)) < 600 + len(str(tmp_path))

    def test_free_settings_are_those_of_the_folder(self, tmp_path):
        self.open(tmp_path)
        assert self.open(tmp_path, SETTINGS | {"shard_size": 9}, free=("shard_size",)).settings["shard_size"] == 4

    def test_overwriting_begins_anew_where_settings_differ(self, tmp_path):
        with self.open(tmp_path).write("1.npy") as file:
            file.write(b"old")
        assert self.open(tmp_path, overwrite=True).missing(["1.npy"]) == []
        pieces = self.open(tmp_path, SETTINGS | {"shard_size": 9}, overwrite=True)
        assert pieces.missing(["1.npy"]) == ["1.npy"] and pieces.settings["shard_size"] == 9
        with pytest.raises(OutputError, match="recipe.seed=0 there, None here"):
            self.open(tmp_path, {"somebody": "else"}, overwrite=True)
        assert PieceFolder.find(tmp_path / "pieces", "note.json").settings["shard_size"] == 9

    def test_folders_of_others_are_left_alone(self, tmp_path):
        (tmp_path / "pieces").mkdir()
        (tmp_path / "pieces" / "thesis.txt").write_text("precious")
        with pytest.raises(OutputError, match="pieces holds other things, and no note.json"):
            self.open(tmp_path, overwrite=True)
        assert names(tmp_path / "pieces") == ["thesis.txt"]
        self.open(tmp_path, pieces="*.npy")
        assert names(tmp_path / "pieces") == ["note.json", "thesis.txt"]

    def test_what_is_damaged_is_named(self, tmp_path):
        pieces = self.open(tmp_path)
        with pieces.write("1.npy") as file:
            np.save(file, np.arange(1000))
        pieces.path("1.npy").write_bytes(pieces.path("1.npy").read_bytes()[:200])
        with pytest.raises(DataError, match=r"1.npy is damaged or cut short .ValueError: .*: remove it"):
            pieces.read("1.npy", np.load)
        pieces.path("note.json").write_text("")
        with pytest.raises(DataError, match=r"note.json is damaged or no JSON"):
            self.open(tmp_path)

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "pieces").write_text("")
        with pytest.raises(OutputError, match="pieces cannot be written"):
            self.open(tmp_path)
