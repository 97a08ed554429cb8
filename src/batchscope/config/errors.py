"""What pydantic found wrong with a config, in one line per mistake: the key, what is wrong, what is allowed."""

import difflib
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from batchscope.config.schema import Section

BRANCH = re.compile(r"constrained-\w+|literal\[.*\]|int|float|str|bool|none")
"""How pydantic names, at the end of a location, the alternative of a union that it tried."""


def explain(errors: Iterable[Any], config: type[Section]) -> str:
    """One line for each mistake: the key, what is wrong, what is allowed. Alternatives of a value share a line."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for error in errors:
        location = tuple(part for part in error["loc"] if part != "[key]")
        of_a_value = error["type"] not in ("extra_forbidden", "missing", "model_type")
        is_branch = of_a_value and len(location) > 1 and BRANCH.fullmatch(str(location[-1]))
        found.setdefault(location[:-1] if is_branch else location, []).append(error)
    return "\n".join(_line(location, alternatives, config) for location, alternatives in found.items())


def _line(location_parts: tuple[Any, ...], alternatives: list[Any], config: type[Section]) -> str:
    error = alternatives[0]
    key = ".".join(str(part) for part in location_parts)
    if error["type"] == "extra_forbidden":
        allowed = _keys_beside(location_parts, config)
        near = difflib.get_close_matches(str(location_parts[-1]), allowed, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"allowed here: {', '.join(allowed)}"
        return f"  {key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"  {key}: this key is required"
    if error["type"] == "model_type":
        return f"  {key}: this is a section with keys of its own (it is {error['input']!r})"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"  {key}: {message}" if key else f"  {message}"
    messages = [message, *(other["msg"].removeprefix("Input should be ") for other in alternatives[1:])]
    return f"  {key}: {message[0].lower()}{' or '.join(messages)[1:]} (it is {error['input']!r})"


def _keys_beside(location_parts: tuple[Any, ...], config: type[Section]) -> list[str]:
    """Names of the keys allowed where the last part of ``location_parts`` stands."""
    section: Any = config
    for part in location_parts[:-1]:
        section = _section_of(section.model_fields[part].annotation) if _is_section(section) else section[1]
    return list(section.model_fields) if _is_section(section) else []


def _section_of(annotation: Any) -> Any:
    """The Section inside an annotation; for a mapping a pair (mapping, its Section)."""
    if get_origin(annotation) in (Union, UnionType):
        return next(_section_of(option) for option in get_args(annotation) if option is not type(None))
    if get_origin(annotation) is dict:
        return (dict, _section_of(get_args(annotation)[1]))
    return annotation


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Section)
