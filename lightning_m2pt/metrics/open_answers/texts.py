"""Texts of answers as score files can hold them."""


def holdable(text: str) -> str:
    """Returns a text that a file can hold: what is half a character becomes a question mark."""
    return text.encode(errors="replace").decode()
