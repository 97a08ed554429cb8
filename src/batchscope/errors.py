"""The errors a user can mend."""


class UserError(Exception):
    """A mistake in the config, the data or the machine. The message says what to change; no traceback is shown."""
