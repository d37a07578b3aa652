"""The exceptions that end a command with a single clear line."""


class UserError(Exception):
    """A mistake the user can act on; the message names the key, the value and what is allowed.

    Exit status 2.
    """

    status = 2


class TransientError(UserError):
    """Something that is nobody's mistake: the same command, started again, may succeed.

    Exit status 75 (EX_TEMPFAIL of sysexits.h).
    """

    status = 75
