"""The base of the config's sections, and the kinds of values that several of them share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

HALF = re.compile("[\ud800-\udfff]")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
"""A part of paths: several of them fit into the 255 bytes that file systems allow a name."""


def _is_of_this_world(value: int) -> int:
    """Larger numbers are a slip of the finger, and become infinite where they are divided."""
    if value > 10**15:
        raise ValueError("must be 1e+15 or less")
    return value


PositiveInt = Annotated[int, Field(gt=0), AfterValidator(_is_of_this_world)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the config: unknown keys are errors, numbers are finite, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        """Half a surrogate pair, which an escape such as ``\\ud800`` in YAML or JSON gives, fits into no file."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and HALF.search(text):
                raise ValueError(f"must be text in Unicode (it is {text!r:.60})")
        return value
