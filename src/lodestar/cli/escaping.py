"""Text that is shown may come from data."""

__all__ = ["escape_control"]


def escape_control(text: str) -> str:
    """Make control characters visible, so that data cannot write to the terminal."""
    return "".join(
        char if char == "\n" or char.isprintable() else f"\\x{ord(char):02x}" for char in text
    )
