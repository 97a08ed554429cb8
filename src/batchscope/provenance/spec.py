"""The base of every spec: a frozen, typed record of what one result depends on."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from batchscope.provenance.fingerprint import canonical_json, digest, without_places


class Spec(BaseModel):
    """What a result depends on, resolved: no name of the user's, and nothing that leaves the result alone.

    An unset field (None) is left out of the text, so that a field added later changes no fingerprint where it is unset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def plain(self) -> dict[str, object]:
        """Values for JSON; ``model_validate`` takes them back."""
        return self.model_dump(mode="json", exclude_none=True)

    def identity(self) -> str:
        """Canonical JSON without paths whose content is named beside them: what two equal results have in common."""
        return canonical_json(without_places(self.plain()))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of ``identity``."""
        return digest(self.identity())

    @classmethod
    def read(cls, plain: object) -> Self:
        """The spec of parsed JSON. Raises pydantic's ValidationError for anything else."""
        return cls.model_validate(plain)
