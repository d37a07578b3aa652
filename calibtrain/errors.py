"""The one exception that means "the user can mend this": a single clear line, exit status 2."""


class UserError(Exception):
    """A mistake the user can act on; the message names the key, the value and what is allowed."""
