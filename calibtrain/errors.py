"""The one exception that means "the user can mend this": a single clear line, exit status 2."""


class UserError(Exception):
    """A mistake the user can act on; the message names the key, the value and what is allowed."""


class SettingError(UserError):
    """A mistake that a setting would mend, which commands without a configuration call otherwise.

    Attributes:
        setting: its key, as `corpus.field`.
    """

    def __init__(self, before: str, setting: str, after: str = ""):
        """Args:
        before: of the message, up to the key.
        setting: the key.
        after: the rest of the message.
        """
        self._around = before, after
        self.setting = setting
        super().__init__(self.said_of(setting))

    def said_of(self, name: str) -> str:
        """The message with another name in place of the key."""
        before, after = self._around
        return f"{before}{name}{after}"
