"""Pydantic models of the records: before Python 3.12 pydantic does not check ``typing.TypedDict`` itself."""

from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, create_model


@cache
def model_of(record: type) -> type[BaseModel]:
    """A model that takes the keys of a TypedDict, and no others."""
    hints = get_type_hints(record)
    required: frozenset[str] = record.__required_keys__  # type: ignore[attr-defined]
    fields: dict[str, Any] = {name: (_checked(hint), ... if name in required else None) for name, hint in hints.items()}
    return create_model(record.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _checked(hint: Any) -> Any:
    """The hint with models in place of records."""
    if is_typeddict(hint):
        return model_of(hint)
    parts = tuple(_checked(part) for part in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return Union[parts]  # noqa: UP007
    return get_origin(hint)[parts] if get_origin(hint) in (list, dict) else hint
