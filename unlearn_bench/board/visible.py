"""Text that others wrote, made harmless to look at: what steers a screen is shown, not obeyed.

A model's output, a method's file and a user's path may hold anything. Marks that a terminal or a
browser would act on, and marks that nobody would see, become signs that say what they are.
"""

from __future__ import annotations

import unicodedata

KEPT = "\n\t"
PICTURES = 0x2400  # SYMBOL FOR NULL, the first of the control pictures
# Cc: control; Cf: format (text direction, zero width, tags); Cs: half of a pair; Co: private;
# Cn: unassigned; Zl, Zp: line and paragraph separators
STEERING = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    """The text with every steering mark replaced; line breaks and tabs stay.

    ESC becomes ␛, a right-to-left override becomes ⟨U+202E⟩.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(sign) for sign in text)


def _shown(sign: str) -> str:
    if sign in KEPT or unicodedata.category(sign) not in STEERING:
        return sign
    code = ord(sign)
    if code < 0x20:
        return chr(PICTURES + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def one_line(text: str) -> str:
    """As `visible`, with line breaks and tabs shown as well."""
    return visible(text).replace("\n", "⏎").replace("\t", "␉")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, the last an ellipsis where something is left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
