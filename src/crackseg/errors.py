"""The one error for what a user did: it says what was wrong, what was expected, what to do."""


class CracksegError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""
