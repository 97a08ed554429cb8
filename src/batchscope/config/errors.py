"""What is wrong with a config, in one line per mistake: the key, what is wrong, what is allowed."""

import difflib
import re
import reprlib
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from batchscope.config.schema import COLOUR, NOUN
from batchscope.config.section import NAME, OfAnotherType, Section
from batchscope.errors import counted, either
from batchscope.wording import visible

SHORT = reprlib.Repr()
"""Of a value that is shown in part, no more is written than that part."""
SHORT.maxdict = SHORT.maxlist = SHORT.maxtuple = SHORT.maxset = 20
SHORT.maxstring = SHORT.maxlong = SHORT.maxother = 80

BRANCH = re.compile(r"constrained-\w+|function-(?:after|before)\[.*\]|literal\[.*\]|int|float|str|bool|none")
"""How pydantic names, at the end of a location, the alternative of a union that it tried."""
PATTERNS = {
    NAME: "a name: letters, digits, `.`, `_` and `-`, the first a letter or a digit",
    COLOUR: "a colour such as `#1f77b4`",
    NOUN: "a noun such as `ticket`: letters alone, in one or more words",
}
ALLOWED: dict[str, Callable[[dict[str, Any]], str]] = {
    "bool_parsing": lambda _: "`true` or `false`",
    "bool_type": lambda _: "`true` or `false`",
    "dict_type": lambda _: "a section with keys of its own",
    "finite_number": lambda _: "a finite number",
    "float_parsing": lambda _: "a number",
    "float_type": lambda _: "a number",
    "greater_than": lambda context: f"above {context['gt']:g}",
    "greater_than_equal": lambda context: f"{context['ge']:g} or more",
    "int_from_float": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a smaller number",
    "int_type": lambda _: "a whole number",
    "invalid_key": lambda _: f"named by {PATTERNS[NAME].removeprefix('a ')}",
    "less_than": lambda context: f"below {context['lt']:g}",
    "less_than_equal": lambda context: f"{context['le']:g} or less",
    "list_type": lambda _: "a list",
    "literal_error": lambda context: either(re.findall(r"'([^']*)'", context["expected"])),
    "model_type": lambda _: "a section with keys of its own",
    "string_pattern_mismatch": lambda context: PATTERNS[context["pattern"]],
    "string_too_long": lambda context: f"text of at most {counted(context['max_length'], 'character')}",
    "string_too_short": lambda _: "text that is not empty",
    "string_type": lambda _: "text",
    "string_unicode": lambda _: "text in Unicode",
    "too_long": lambda context: f"a list of at most {counted(context['max_length'], 'entry')}",
    "too_short": lambda context: (
        f"a {'section' if context['field_type'] == 'Dictionary' else 'list'} of at least "
        + counted(context["min_length"], "entry")
    ),
    "tuple_type": lambda _: "a list",
}
"""Type of pydantic's error → what the value must be, given the error's context."""


def explain(errors: Iterable[Any], config: type[Section]) -> str:
    """One line for each mistake: the key, what is wrong, what is allowed. Alternatives of a value share a line."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for error in errors:
        place = error["loc"]
        location = (*place[:-2], error["input"]) if place[-1:] == ("[key]",) else place
        of_a_value = error["type"] not in ("extra_forbidden", "missing", "model_type")
        is_branch = of_a_value and len(location) > 1 and BRANCH.fullmatch(str(location[-1]))
        found.setdefault(location[:-1] if is_branch else location, []).append(error)
    return "\n".join(_line(location, alternatives, config) for location, alternatives in found.items())


def _line(location: tuple[Any, ...], alternatives: list[Any], config: type[Section]) -> str:
    error, key = alternatives[0], _key(location, config)
    if error["type"] == "extra_forbidden":
        allowed = _keys_beside(location, config)
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"allowed here: {', '.join(allowed)}"
        return f"  {key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"  {key}: this key is required"
    types = [_type_of(one) for one in alternatives]
    if types[0] == "value_error":
        message = str(error["ctx"]["error"])
        return f"  {key}: {message}" if key else f"  {message}"
    allowed = [
        ALLOWED[kind](one.get("ctx", {})) if kind in ALLOWED else "another"
        for kind, one in zip(types, alternatives, strict=True)
    ]
    value = error["input"]
    quote = "; put it into quotation marks" if allowed == ["text"] and isinstance(value, bool | int | float) else ""
    return f"  {key}: must be {' or '.join(dict.fromkeys(allowed))} (it is {shown(value)}){quote}"


def _type_of(error: Any) -> str:
    """Pydantic's name of the error, also where a validator of the config raised it."""
    raised = error.get("ctx", {}).get("error")
    return str(raised) if isinstance(raised, OfAnotherType) else str(error["type"])


def _key(location: tuple[Any, ...], config: type[Section]) -> str:
    """``budget.epochs``; an entry of a list is counted from 1: ``seeds, entry 2``."""
    key, annotation = "", config
    for part in location:
        if get_origin(annotation) in (list, tuple):
            key += f", entry {part + 1}"
        else:
            name = visible(str(part)).replace("\n", "\\n")
            key += f".{name}" if key else name
        annotation = _inner(annotation, part)
    return key


def shown(value: object) -> str:
    """A value of the config, shortened where it is long."""
    text = repr(value) if isinstance(value, str) else SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _keys_beside(location: tuple[Any, ...], config: type[Section]) -> list[str]:
    """Names of the keys allowed beside the last part of ``location``."""
    section: Any = config
    for part in location[:-1]:
        section = _inner(section, part)
    return list(section.model_fields) if is_section(section) else []


def _inner(annotation: Any, part: Any) -> Any:
    """The annotation one step further: that of a section's key, of a mapping's or of a list's values."""
    if is_section(annotation):
        field = annotation.model_fields.get(part)
        return None if field is None else without_none(field.annotation)
    return (
        without_none(get_args(annotation)[-1 if get_origin(annotation) is dict else 0])
        if get_args(annotation)
        else None
    )


def without_none(annotation: Any) -> Any:
    """The annotation of a value that is given: the first alternative but None, without its constraints."""
    if get_origin(annotation) in (Union, UnionType):
        return without_none(next(option for option in get_args(annotation) if option is not type(None)))
    return without_none(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def is_section(candidate: Any) -> bool:
    """Whether an annotation is a section of the config."""
    return isinstance(candidate, type) and issubclass(candidate, Section)
