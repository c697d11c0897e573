"""A file of records: JSON and arrays in one zip, in Zarr's format, which xarray and ArviZ open too.

A record is said by the names of its fields. What a file can hold is a short list: numbers, text,
arrays of numbers, tuples, lists, dicts, and records whose kinds are listed by the caller. Nothing
in a file is evaluated, imported or unpickled; the names in it are looked up in that list alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Dataset, FilePath
from ranef.arguments import file_path
from ranef.errors import Convergence, FitError, RanefError
from ranef.numerics.memory import BYTES, check_memory

type Kinds = Mapping[str, type]
type Arrays = dict[str, NDArray[Any]]

FORMAT = 2
PACKAGE = "ranef"
MARK = PACKAGE  # the attribute that says what a file is
IN_LINE = 50  # numbers of an array that stand among the text
ARRAYS = "arrays"  # the group of all others
_NUMBERS = "biuf"
_KNOWN_DTYPE = re.compile(r"[<>|][biufU]\d+")
_COMPRESSORS = (None, "zstd", "blosc")
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of a zip: the same fit makes the same file


@dataclass(frozen=True, eq=False)
class Archive:
    """What a file holds.

    Attributes
    ----------
    record : dict
        Of numbers, text, arrays and records, by name.
    groups : dict of str to xarray.Dataset
        Tables of draws with their labels.
    """

    record: dict[str, Any]
    groups: dict[str, Dataset]


# ----------------------------------------------------------------------------- records as JSON


def pack(value: object, arrays: Arrays, kinds: Kinds) -> Any:
    """Return a value as JSON; large arrays are put into a dict, and referred to by their key.

    What JSON does not have is an object of one entry, whose name says what it is.

    Raises
    ------
    FitError
        If it is of another kind than files hold.
    """

    def inner(of: Iterable[object]) -> list[Any]:
        return [pack(one, arrays, kinds) for one in of]

    if isinstance(value, np.generic):
        value = value.item()
    packed: Any = _packed_number(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
        packed = {"numbers": [value.dtype.str, list(value.shape), inner(value.ravel().tolist())]}
        if value.size > IN_LINE:
            packed = {"array": f"a{len(arrays)}"}
            arrays[packed["array"]] = value
    elif isinstance(value, list):
        packed = inner(value)
    elif isinstance(value, tuple):
        packed = {"tuple": inner(value)}
    elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        packed = {"dict": dict(zip(value, inner(value.values()), strict=True))}
    elif is_dataclass(value) and kinds.get(type(value).__name__) is type(value):
        by_field = {field.name: getattr(value, field.name) for field in fields(value)}
        packed = {"record": [type(value).__name__, pack(by_field, arrays, kinds)]}
    if packed is None and value is not None:
        message = f"a file cannot hold {value!r}: numbers, text and the records of `ranef` are "
        raise FitError(f"{message}what it can.")
    return packed


def _packed_number(value: object) -> Any:
    """Return a number, text or how a fit converged as JSON; None for anything else."""
    if isinstance(value, Convergence):
        return {"convergence": value.name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    return value if isinstance(value, bool | int | float | str) else None


def unpack(packed: Any, arrays: Mapping[str, NDArray[Any]], kinds: Kinds) -> Any:
    """Return the value that JSON says."""

    def inner(one: Any) -> Any:
        return unpack(one, arrays, kinds)

    def array(numbers: Sequence[Any]) -> NDArray[Any]:
        dtype, shape, values = numbers
        if not _KNOWN_DTYPE.fullmatch(dtype):
            raise ValueError(f"an array has the type {dtype}")
        return np.array(inner(values), dtype=dtype).reshape(shape)

    readers: dict[str, Callable[[Any], Any]] = {
        "array": lambda key: arrays[key],
        "numbers": array,
        "number": float,
        "convergence": lambda name: Convergence[name],
        "tuple": lambda values: tuple(map(inner, values)),
        "dict": lambda values: {key: inner(one) for key, one in values.items()},
        "record": lambda named: kinds[named[0]](**inner(named[1])),
    }
    if isinstance(packed, list):
        return [inner(one) for one in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, said),) = packed.items()
    return readers[kind](said)


def same(first: Any, second: Any, *, rounding: float = 0.0) -> bool:
    """Whether two values that files hold are the same, arrays number by number.

    With `rounding` numbers of arrays may differ by that share of the largest one.
    """
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        if rounding:
            size = rounding * np.abs(first).max(initial=0.0)
            return first.shape == second.shape and np.allclose(first, second, rounding, size)
        is_float = first.dtype.kind == "f"
        return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=is_float)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        pairs = [(first[key], second.get(key)) for key in first]
        return list(first) == list(second) and all(same(*pair, rounding=rounding) for pair in pairs)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        pairs = list(zip(first, second, strict=False))
        return len(first) == len(second) and all(same(*pair, rounding=rounding) for pair in pairs)
    if isinstance(first, float) and isinstance(second, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    return type(first) is type(second) and bool(first == second)


# ------------------------------------------------------------------------------------- the file


def write(path: FilePath, archive: Archive, kinds: Kinds, about: Mapping[str, str]) -> None:
    """Write a file, or leave the one that is there as it is if that fails.

    Parameters
    ----------
    path : path
    archive : Archive
    kinds : mapping of str to type
        The records that it may hold, by the names of their classes.
    about : mapping of str to str
        What a reader without this package should see.

    Raises
    ------
    OSError, FitError
        As of `place_of`.
    """
    import xarray as xr
    from zarr.storage import MemoryStore

    target = place_of(path)
    arrays: Arrays = {}
    body = {
        "format": FORMAT,
        "version": version(PACKAGE),
        "record": pack(archive.record, arrays, kinds),
        "order": {name: list(map(str, group.variables)) for name, group in archive.groups.items()},
    }
    root = xr.Dataset(attrs={**about, MARK: json.dumps(body, allow_nan=False)})
    by_name = {
        key: ([f"{key}_{axis}" for axis in range(one.ndim)], one) for key, one in arrays.items()
    }
    groups = {f"/{name}": _plain(group) for name, group in archive.groups.items()}
    tree = xr.DataTree.from_dict({"/": root, f"/{ARRAYS}": xr.Dataset(by_name), **groups})
    members: dict[str, Any] = {}
    tree.to_zarr(MemoryStore(members), zarr_format=2, consolidated=True)
    unfinished = target.with_name(f".{uuid.uuid4().hex}")  # of this process and thread alone
    try:
        with zipfile.ZipFile(unfinished, "x", zipfile.ZIP_DEFLATED) as file:
            for name, member in sorted(members.items()):
                info = zipfile.ZipInfo(name, _FIRST_DAY)
                info.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(info, member.to_bytes())
            file.comment = _seal(file)
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def place_of(path: FilePath) -> Path:
    """Return where a file of a path is to be written: of a link what it leads to.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, FitError
        If there is no folder for it, or something that is not to be replaced by a file.
    """
    path = file_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder `{path.parent}` to save `{path.name}` in.")
    if path.is_dir():
        raise IsADirectoryError(f"`{path}` is a folder: name a file in it, `{path / 'fit'}`.")
    if path.exists() and not path.is_file():
        raise FitError(f"`{path}` is a device, which no file is to take the place of.")
    target = path.resolve()
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"nothing may be written into the folder `{target.parent}`.")
    return target


def _plain(group: Dataset) -> Dataset:
    """Return a table whose labels are numbers or text, and whose attributes are text."""
    labels = {
        name: one.copy(data=one.to_numpy().astype(str))
        for name, one in group.variables.items()
        if one.dtype.kind not in _NUMBERS
    }
    plain = group.assign_coords({n: one for n, one in labels.items() if n in group.coords})
    plain = plain.assign({n: one for n, one in labels.items() if n not in group.coords})
    kept = {str(name): _plain_attribute(value) for name, value in group.attrs.items()}
    return plain.assign_attrs(kept)


def _plain_attribute(value: object) -> object:
    """Return an attribute as it is where JSON can say it, otherwise as text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def read(path: FilePath, kinds: Kinds) -> Archive:
    """Read a file.

    Raises
    ------
    FitError
        If it is not a file of this package, damaged, or of a later version of its format.
    """
    path = file_path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file `{path.absolute()}`.")
    if path.is_dir():
        raise FitError(f"`{path}` is a folder, and not a file that fit.save() has made.")
    with path.open("rb") as file:
        start = file.read(4)
    if not zipfile.is_zipfile(path):
        if start == b"PK\x03\x04":
            raise FitError(f"`{path}` is damaged: its end is missing. {_REMEDY}")
        raise FitError(f"`{path}` is not a file that fit.save() has made.")
    with damage(path):
        body, groups = _opened(path)
        arrays = groups.pop(ARRAYS)
        by_name = {str(key): one.to_numpy() for key, one in arrays.data_vars.items()}
        in_order = {name: _ordered(groups[name], order) for name, order in body["order"].items()}
        return Archive(unpack(body["record"], by_name, kinds), in_order)


def _ordered(group: Dataset, names: Sequence[str]) -> Dataset:
    """Return a table with its variables in the order that they were written in."""
    import xarray as xr

    variables = {name: group.variables[name] for name in names}
    coords = {name: one for name, one in variables.items() if name in group.coords}
    data = {name: one for name, one in variables.items() if name not in group.coords}
    return xr.Dataset(data, coords, group.attrs)


_REMEDY = "Save the fit again; or remove the file, so that it can be made anew."


@contextlib.contextmanager
def damage(path: FilePath) -> Iterator[None]:
    """Say of an error that a file which is not as it was written leads to that this is so."""
    try:
        yield
    except RanefError:
        raise
    except _FAULTS as error:
        what = f"{type(error).__name__}: {error}"
        raise FitError(f"`{path}` is damaged ({what}). {_REMEDY}") from error


def _opened(path: FilePath) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """Return what this package says in a file, and its groups."""
    import xarray as xr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    with zipfile.ZipFile(path) as file:
        attributes = json.loads(file.read(".zattrs")) if ".zattrs" in file.namelist() else {}
        if MARK not in attributes:
            raise FitError(f"`{path}` is not a file that fit.save() has made.")
        body = json.loads(attributes[MARK])
        if body["format"] != FORMAT:
            remedy = "Update it." if body["format"] > FORMAT else _REMEDY
            raise FitError(
                f"`{path}` was saved by ranef {body['version']}, in format {body['format']} of its "
                f"files; this is ranef {version(PACKAGE)}, which reads format {FORMAT}. {remedy}"
            )
        if file.comment != _seal(file):  # Zarr takes missing members for empty ones
            raise ValueError("its parts are not those that were saved")
        _check_members(file, path)
        members = {name: file.read(name) for name in file.namelist()}  # checks each of them
    in_buffer = default_buffer_prototype().buffer.from_bytes
    store: Any = MemoryStore({name: in_buffer(member) for name, member in members.items()})
    tree = xr.open_datatree(
        store, engine="zarr", zarr_format=2, consolidated=True, chunks=None, decode_times=False
    )
    return body, {name: child.to_dataset().load() for name, child in tree.children.items()}


def _seal(file: zipfile.ZipFile) -> bytes:
    """Return what the comment of a file says that is as it was saved: a checksum of its members."""
    contents = sorted((member.filename, member.CRC) for member in file.infolist())
    return f"{PACKAGE} {zlib.crc32(repr(contents).encode()):08x}".encode()


def _check_members(file: zipfile.ZipFile, path: FilePath) -> None:
    """Refuse arrays that have to be made by more than copying, or larger than free memory."""
    size = sum(member.file_size for member in file.infolist()) / BYTES
    described = json.loads(file.read(".zmetadata"))["metadata"]
    for array in (said for name, said in described.items() if name.endswith(".zarray")):
        compressor = (array["compressor"] or {"id": None})["id"]
        if array["filters"] or compressor not in _COMPRESSORS:
            raise ValueError("an array has a filter that is none of this package's")
        if not _KNOWN_DTYPE.fullmatch(array["dtype"]):
            raise ValueError(f"an array has the type {array['dtype']}")
        size += math.prod(array["shape"])
    check_memory(size, f"reading `{path}`", "Read it on a machine with more memory.")
