"""The one error for what a user did: it says what was wrong, what was expected, what to do; errors in one line."""


class CracksegError(ValueError):
    """A mistake in the input; the command line prints its message without a traceback."""


def first_line(error: BaseException, limit: int = 200) -> str:
    """Summarise an error in one line: the class where it says nothing, without what requests repeats at length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" failed with exception")[0][:limit]
