"""What the tokenizers library raises, in words: bare exceptions, and panics, which are no ``Exception`` at all."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchscope.errors import UserError
from batchscope.model.folder import OWN_CODE, asks_for_code


@contextmanager
def explained(what: str, advice: str = "") -> Iterator[None]:
    """Turns an error of transformers or tokenizers into a UserError that begins with ``what``."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if asks_for_code(error):
            raise UserError(f"{what}: {OWN_CODE}") from None
        plain = isinstance(error, OSError | ValueError) or type(error) is Exception
        cause = str(error).strip() if plain else f"{type(error).__name__}: {error}"
        raise UserError(f"{what}: {cause}" + (f"\n  {advice}" if advice else "")) from None
