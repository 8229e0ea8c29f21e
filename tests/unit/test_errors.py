"""Errors in one line."""

from crackseg.errors import first_line


def test_the_first_line_of_an_error_is_what_a_reader_needs() -> None:
    assert first_line(ValueError("  wrong size\nstack of the library")) == "wrong size"
    assert first_line(ValueError("\n")) == "ValueError"
    request = "API request to http://x failed with exception HTTPConnectionPool: refused"
    assert first_line(OSError(request)) == "API request to http://x"
    assert len(first_line(ValueError("x" * 999))) == 200
