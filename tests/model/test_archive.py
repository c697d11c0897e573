"""The file: what it holds comes back, and what is no such file, or no longer one, is refused."""

from __future__ import annotations

import json
import math
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from zarr.storage import ZipStore

from ranef.errors import Convergence, FitError
from ranef.model import archive
from ranef.model.archive import Archive, pack, read, same, unpack, write


@dataclass(frozen=True)
class Point:
    """A record."""

    x: float
    y: object = None


KINDS = {"Point": Point}
RECORD = {
    "nothing": None,
    "flags": (True, False),
    "numbers": [1, -2.5, 1e-320, math.nan, math.inf, -math.inf, 2**80],
    "text": "ü 'x' \n \u2028",
    "few": np.array([[1.5, math.nan], [math.inf, 0.1]]),
    "none": np.zeros((3, 0)),
    "many": np.linspace(0, 1, 300).reshape(3, 100),
    "whole": np.arange(90, dtype=np.int32),
    "truth": np.arange(90) % 2 == 0,
    "records": (Point(0.1), Point(2.0, (Convergence.SINGULAR, Point(1.0)))),
    "keys": {"a b": {"": 1}, "array": "a0"},
}
DRAWS = xr.Dataset(
    {
        "z": (("chain", "draw", "g"), np.random.default_rng(1).normal(size=(2, 50, 3))),
        "a": (("chain", "draw"), np.arange(100).reshape(2, 50) % 3 == 0),
    },
    {"g": np.array(["u", 1, "ü"], dtype=object), "chain": [0, 1]},
    {"sampler": "none", "n": 3, "list": [1, 2], "other": 1j},
)
ABOUT = {"formula": "y ~ x"}


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "fit.zip", Archive(RECORD, {"posterior": DRAWS}), KINDS, ABOUT)
    return tmp_path / "fit.zip"


def message(path):
    with pytest.raises(FitError) as caught:
        read(path, KINDS)
    return str(caught.value).replace(str(path), "PATH")


def changed(path, **members):
    """Write a file again with other members; None leaves one out."""
    with zipfile.ZipFile(path) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    for name, change in members.items():
        if change is None:
            del contents[name]
        else:
            contents[name] = change(contents.get(name))
    with zipfile.ZipFile(path, "w") as new:
        for name, content in contents.items():
            new.writestr(name, content)
        new.comment = archive._seal(new)


def in_json(change):
    """Return a function of a member that changes its JSON."""

    def of(content):
        parsed = json.loads(content)
        change(parsed)
        return json.dumps(parsed).encode()

    return of


def in_body(change):
    """Return a function of the root's attributes that changes what this package says there."""

    def of(attributes):
        body = json.loads(attributes["ranef"])
        change(body)
        attributes["ranef"] = json.dumps(body)

    return in_json(of)


def test_everything_comes_back(path):
    archive = read(path, KINDS)
    assert same(archive.record, RECORD)
    assert archive.record["records"] == RECORD["records"]
    again = archive.groups["posterior"]
    xr.testing.assert_equal(again.drop_vars("g"), DRAWS.drop_vars("g"))
    assert list(again.variables) == list(DRAWS.variables)
    assert again["g"].to_numpy().tolist() == ["u", "1", "ü"]
    assert again.attrs == {"sampler": "none", "n": 3, "list": [1, 2], "other": "1j"}


def test_others_can_read_the_tables(path):
    tree = xr.open_datatree(ZipStore(path), engine="zarr")
    assert tree.attrs["formula"] == "y ~ x"
    np.testing.assert_array_equal(tree["posterior/z"], DRAWS["z"])


def test_the_same_makes_the_same_file(path, tmp_path):
    write(tmp_path / "two.zip", Archive(RECORD, {"posterior": DRAWS}), KINDS, ABOUT)
    assert (tmp_path / "two.zip").read_bytes() == path.read_bytes()


def test_numbers_are_in_line_where_they_are_few():
    arrays = {}
    packed = pack({"few": np.ones(2), "many": np.ones(200)}, arrays, KINDS)
    assert packed == {
        "dict": {"few": {"numbers": ["<f8", [2], [1.0, 1.0]]}, "many": {"array": "a0"}}
    }
    assert list(arrays) == ["a0"]
    assert same(unpack(packed, arrays, KINDS), {"few": np.ones(2), "many": np.ones(200)})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (len, "<built-in function len>"),
        (1j, "1j"),
        ({1: 2}, "{1: 2}"),
        (np.array(["a"], dtype=object), "array(['a'], dtype=object)"),
        (Archive({}, {}), "Archive(record={}, groups={})"),
    ],
)
def test_other_values_are_refused(value, shown):
    with pytest.raises(FitError) as caught:
        pack([value], {}, KINDS)
    assert str(caught.value) == (
        f"a file cannot hold {shown}: numbers, text and the records of `ranef` are what it can."
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, True),
        (1.0, 1),
        ([1], [1, 1]),
        ({"a": 1}, {"b": 1}),
        (np.ones(2), np.ones(3)),
        (np.ones(2), np.ones(2, dtype=np.int64)),
        (Point(1.0), Point(2.0)),
        (np.ones(1), 1.0),
    ],
)
def test_what_differs_is_not_the_same(first, second):
    assert same(first, first)
    assert same(second, second)
    assert not same(first, second)


def test_arrays_may_be_the_same_but_for_rounding():
    first = {"a": (np.array([1.0, 1e6]), np.arange(3))}
    second = {"a": (np.array([1.001, 1e6]), np.arange(3))}
    assert same(first, second, rounding=1e-8)
    assert not same(first, second)
    assert not same(first, second, rounding=1e-12)
    assert not same(first, {"a": (first["a"][0][:1], np.arange(3))}, rounding=1e-8)


# ------------------------------------------------------------------------ what is no such file


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x80\x04K\x01.", b"CDF\x01" + bytes(99)])
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "other"
    path.write_bytes(content)
    assert message(path) == "`PATH` is not a file that fit.save() has made."


def test_a_folder_is_refused(tmp_path):
    assert message(tmp_path) == "`PATH` is a folder, and not a file that fit.save() has made."


def test_another_zip_is_refused(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")
    assert message(path) == "`PATH` is not a file that fit.save() has made."
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(".zattrs", "{}")
    assert message(path) == "`PATH` is not a file that fit.save() has made."


def test_a_missing_file_is_what_it_is_everywhere(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.zip", KINDS)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99])
def test_a_truncated_file_is_damaged(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert message(path) == (
        "`PATH` is damaged: its end is missing. Save the fit again; or remove the file, so that it "
        "can be made anew."
    )


def test_no_flipped_byte_goes_unseen(path):
    """Or it is of the names and dates of the zip that nobody reads."""
    content = bytearray(path.read_bytes())
    refused = 0
    for place in range(0, len(content), 97):
        content[place] ^= 0x55
        path.write_bytes(content)
        content[place] ^= 0x55
        found = outcome(path)
        if isinstance(found, str):
            refused += 1
            assert "is damaged" in found or "is not a file that" in found
        else:
            assert same(found.record, RECORD)
            np.testing.assert_array_equal(found.groups["posterior"]["z"], DRAWS["z"])
    assert refused > 20


def outcome(path):
    """Return what is in a file, or the words that refuse it."""
    try:
        return read(path, KINDS)
    except FitError as error:
        return str(error)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (3, "Update it."),
        (1, "Save the fit again; or remove the file, so that it can be made anew."),
    ],
)
def test_another_format_is_said(path, number, remedy):
    changed(path, **{".zattrs": in_body(lambda b: b.update(format=number, version="9.1", more=1))})
    assert message(path) == (
        f"`PATH` was saved by ranef 9.1, in format {number} of its files; this is ranef 0.1.0, "
        f"which reads format 2. {remedy}"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("record"),
        lambda body: body.update(format=None),
        lambda body: body.update(record={"record": ["Popen", {"dict": {}}]}),
        lambda body: body.update(record={"record": ["Point", {"dict": {"w": 1}}]}),
        lambda body: body.update(record={"array": "a99"}),
        lambda body: body.update(record={"code": "1"}),
        lambda body: body.update(record={"dict": {}, "tuple": []}),
        lambda body: body.update(record={"numbers": ["|O8", [1], [1]]}),
        lambda body: body.update(record={"convergence": "name"}),
        lambda body: body.update(order={"posterior": ["nothing"]}),
    ],
)
def test_a_file_that_says_something_else_is_damaged(path, change):
    changed(path, **{".zattrs": in_body(change)})
    assert message(path).startswith("`PATH` is damaged (")


@pytest.mark.parametrize("change", [None, lambda _: b"{}", lambda _: b"["])
def test_missing_descriptions_are_damage(path, change):
    changed(path, **{".zmetadata": change})
    assert message(path).startswith("`PATH` is damaged (")


def as_saved(path, **members):
    """Write a file again with other members, and what it said of the first ones."""
    with zipfile.ZipFile(path) as old:
        comment = old.comment
    changed(path, **members)
    with zipfile.ZipFile(path, "a") as new:
        new.comment = comment


@pytest.mark.parametrize(
    "members",
    [
        {"posterior/z/0.0.0": None},  # Zarr takes it for the fill value
        {".zattrs": lambda text: text.replace(b'"2"', b'"3"').replace(b"1.5", b"1.6") + b" "},
        {"posterior/z/0.0.0": lambda content: content[:-1] + bytes([content[-1] ^ 1])},
        {"another": lambda _: b""},
    ],
    ids=["left out", "text", "numbers", "more"],
)
def test_members_that_were_not_saved_so_are_damage(path, members):
    as_saved(path)
    read(path, KINDS)
    as_saved(path, **members)
    assert "its parts are not those that were saved" in message(path)


EVIL = {"id": "pickle", "protocol": 5}


def in_description(**fields):
    """Return a function of the descriptions of all arrays that changes that of one."""
    return in_json(lambda parsed: parsed["metadata"]["posterior/z/.zarray"].update(fields))


@pytest.mark.parametrize("fields", [{"filters": [EVIL]}, {"compressor": EVIL}])
def test_no_codec_that_unpickles_is_reached(path, fields, monkeypatch):
    monkeypatch.setattr("numcodecs.pickles.Pickle.decode", lambda *_: 1 / 0)
    changed(path, **{".zmetadata": in_description(**fields)})
    assert "an array has a filter that is none of this package's" in message(path)


def test_descriptions_of_single_arrays_are_not_what_is_read(path):
    changed(path, **{"posterior/z/.zarray": in_json(lambda parsed: parsed.update(filters=[EVIL]))})
    np.testing.assert_array_equal(read(path, KINDS).groups["posterior"]["z"], DRAWS["z"])


def test_objects_are_refused(path):
    changed(path, **{".zmetadata": in_description(dtype="|O")})
    assert "an array has the type |O" in message(path)


def test_an_array_beyond_all_memory_is_refused(path):
    changed(path, **{".zmetadata": in_description(shape=[10**6, 10**6, 10**3])})
    assert message(path).startswith("reading `PATH` needs 8,000,000 GB of memory, and ")


def test_a_file_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    before = path.read_bytes()
    with pytest.raises(FitError):
        write(path, Archive({"f": len}, {}), KINDS, ABOUT)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, Archive({"f": 1}, {}), KINDS, ABOUT)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_there_is_not(tmp_path):
    folder = tmp_path / "none"
    with pytest.raises(FileNotFoundError) as caught:
        write(folder / "fit.zip", Archive(RECORD, {}), KINDS, ABOUT)
    assert str(caught.value) == f"there is no folder `{folder}` to save `fit.zip` in."
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path, Archive(RECORD, {}), KINDS, ABOUT)
    assert str(caught.value) == f"`{tmp_path}` is a folder: name a file in it, `{tmp_path}/fit`."


def test_a_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FitError, match="is a device, which no file is to take the place of"):
        write(tmp_path / "pipe", Archive(RECORD, {}), KINDS, ABOUT)
    assert not (tmp_path / "pipe").is_file()


def test_a_folder_that_nothing_may_be_written_into(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="nothing may be written into the folder"):
        write(tmp_path / "fit.zip", Archive(RECORD, {}), KINDS, ABOUT)


def test_a_link_leads_to_the_new_file_and_permissions_stay(path, tmp_path):
    path.chmod(0o640)
    (tmp_path / "link.zip").symlink_to(path)
    write(tmp_path / "link.zip", Archive({"f": 1}, {}), KINDS, ABOUT)
    assert (tmp_path / "link.zip").is_symlink()
    assert read(path, KINDS).record == {"f": 1}
    assert path.stat().st_mode & 0o777 == 0o640


def test_threads_may_write_one_file_at_once(path):
    def written(number):
        for _ in range(5):
            write(path, Archive({"f": number}, {}), KINDS, ABOUT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(written, range(4)))
    assert read(path, KINDS).record["f"] in range(4)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_there_is_not_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        read("fit.zip", KINDS)
    assert str(caught.value) == f"there is no file `{tmp_path / 'fit.zip'}`."
