"""The errors a user can meet, each with one message that says what, where, and what would do.

The first three are the user's to mend (exit code 2); the last is rankwise's own (exit code 1).
"""


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it and exits with code 2."""


class SpecError(UserError):
    """The spec, or a command-line override of it, asks for something that cannot be."""


class DataError(UserError):
    """The data cannot be read, or do not hold what the spec says of them."""


class ModelError(UserError):
    """The base model cannot be found or loaded, or has not the modules that the spec names."""


class StoreError(RuntimeError):
    """The study folder is damaged, in use, or was written by a newer rankwise."""
