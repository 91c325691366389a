"""The errors a user can see. Each message says what is wrong, where, what was found, what to do.

A `UserError` is a mistake that the user can correct (exit code 2); a `StoreError` is not (1).
"""


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it and exits with code 2."""


class SpecError(UserError):
    """The spec, or a command-line override of it, has unknown settings or invalid values."""


class DataError(UserError):
    """The data cannot be read, or do not contain what the spec says."""


class ModelError(UserError):
    """The base model cannot be found or loaded, or lacks the modules that the spec names."""


class StoreError(RuntimeError):
    """The study folder is damaged, in use, or was written by a newer rankwise."""


class DamagedError(StoreError):
    """`study.db` is not what was written; `rankwise repair` and `rankwise run` repair it."""


class DiskFullError(StoreError):
    """A write failed because the disk is full; once there is room, the same command goes on."""


class WrongFolderError(UserError, StoreError):
    """The folder given holds no study, one of another base, data or names, or is read-only."""


class InUseError(UserError, StoreError):
    """Another process writes this study."""


SHORTAGE = (
    "allocate memory",  # torch, and the operating system's own words
    "failed to map segment",  # the loader of shared libraries
    "could not create a primitive",  # oneDNN; what it cannot do at all is a "primitive descriptor"
)


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    text = str(error).replace("primitive descriptor", "")
    native = isinstance(error, RuntimeError | OSError | ImportError)
    return native and any(words in text for words in SHORTAGE)
