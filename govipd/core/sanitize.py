"""Sanitizes untrusted text before it is logged, shown, or stored."""


def sanitize_line(text: str, longest: int = 200) -> str:
    """One printable line: replaces unprintable characters, and cuts the text after `longest` characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
