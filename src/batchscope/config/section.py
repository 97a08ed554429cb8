"""The base of the config's sections, and the kinds of values that several of them share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from batchscope.files import HALF

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
"""A part of paths: several of them fit into the 255 bytes that file systems allow a name."""


def _is_of_this_world(value: int) -> int:
    """Larger numbers are a slip of the finger, and become infinite where they are divided."""
    if value > 10**15:
        raise ValueError("must be 1e+15 or less")
    return value


class OfAnotherType(ValueError):
    """A value of another type; holds pydantic's name of this error, such as ``int_type``."""


def _no_whole_number(value: object) -> object:
    """YAML reads `yes` and `on` as true, which Python takes for 1."""
    if isinstance(value, bool):
        raise OfAnotherType("int_type")
    return value


def _no_number(value: object) -> object:
    if isinstance(value, bool):
        raise OfAnotherType("float_type")
    return value


WHOLE = BeforeValidator(_no_whole_number)
"""Ends the annotation of a whole number; it comes last, so that the schema still tells the limits."""
REAL = BeforeValidator(_no_number)
"""Ends the annotation of any other number."""
NaturalInt = Annotated[int, Field(ge=0), WHOLE]
PositiveInt = Annotated[int, Field(gt=0), AfterValidator(_is_of_this_world), WHOLE]
PositiveFloat = Annotated[float, Field(gt=0), REAL]
Fraction = Annotated[float, Field(gt=0, lt=1), REAL]


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
