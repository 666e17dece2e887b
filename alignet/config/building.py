"""From plain values, as YAML and JSON have them, to frozen dataclasses, checked key by key.

Errors name the key, what was expected and what was found. This file imports neither torch nor numpy.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` (plain data) as an instance of the annotated type `kind`, checked; `where` names the key."""
    if isinstance(value, str) and value == "???":
        raise ValueError(f"{where}: not set; the experiment or the command line must give it")
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(kind), value, where)
    if origin is Literal:
        if value in get_args(kind) and type(value) in {type(item) for item in get_args(kind)}:
            return value
        raise _wrong(where, "one of " + ", ".join(repr(item) for item in get_args(kind)), value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(where, "a list", value)
        return tuple(build(get_args(kind)[0], item, f"{where}[{row}]") for row, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, "a mapping", value)
        return {str(name): build(get_args(kind)[1], item, f"{where}.{name}") for name, item in value.items()}
    return _build_scalar(kind, value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, f"a section with {', '.join(item.name for item in fields(kind))}", value)
    hints = get_type_hints(kind)
    for name in value:
        if name not in hints:
            near = difflib.get_close_matches(str(name), list(hints), n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; its keys are {', '.join(hints)}"
            raise ValueError(f"no configuration key {_join(where, name)!r}{meant}")
    own = {item.name: item.default for item in fields(kind) if item.default is not MISSING}  # what few need
    own |= {item.name: item.default_factory() for item in fields(kind) if item.default_factory is not MISSING}
    value = own | dict(value)
    missing = [name for name in hints if name not in value]
    if missing:
        raise ValueError(
            f"{where or 'configuration'}: missing {', '.join(missing)}; set it in conf/ or on the command line"
        )
    return kind(**{name: build(hint, value[name], _join(where, name)) for name, hint in hints.items()})


def _build_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if all(is_dataclass(option) for option in options):
        return _build_kind(options, value, where)
    sections = [option for option in options if is_dataclass(option)]
    if sections and isinstance(value, Mapping):  # a section or null: what is wrong inside of it says more
        return _build_dataclass(sections[0], value, where)
    expected = []
    for option in options:
        if option is type(None):
            if value is None:
                return None
            expected.append("null")
            continue
        try:
            return build(option, value, where)
        except ValueError as error:
            expected.append(str(error).partition("expected ")[2].partition(", found")[0])
    raise _wrong(where, " or ".join(expected), value)


def _build_kind(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """The one of several dataclasses whose field `kind` allows the value's."""
    kinds = {kind: option for option in options for kind in get_args(get_type_hints(option)["kind"])}
    found = value.get("kind") if isinstance(value, Mapping) else value
    if found not in kinds:
        raise _wrong(f"{where}.kind", "one of " + ", ".join(kinds), found)
    return _build_dataclass(kinds[found], value, where)


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise _wrong(where, names.get(kind, str(kind)), value)


def _wrong(where: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{where}: expected {expected}, found {value!r} ({type(value).__name__})")


def _join(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)
