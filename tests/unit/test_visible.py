"""Text that others wrote: what would steer a screen is shown and not obeyed."""

from __future__ import annotations

import unicodedata

import pytest

from unlearn_bench.board.visible import STEERING, cut, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünï €", "plain – ünï €"),
        ("line\n\tnext", "line\n\tnext"),
        ("\x1b[31mred\x07\x00", "␛[31mred␇␀"),
        ("over\rwritten\x08", "over␍written␈"),
        ("\x7f\x9b2J", "␡⟨U+009B⟩2J"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("a\u200bb\ufeff\u2066", "a⟨U+200B⟩b⟨U+FEFF⟩⟨U+2066⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2028\u2029", "⟨U+2028⟩⟨U+2029⟩"),
    ],
)
def test_steering_marks_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_steering_mark_of_unicode_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = {sign for sign in visible(every) if unicodedata.category(sign) in STEERING}
    assert left == {"\n", "\t"}


def test_one_line_is_one() -> None:
    assert one_line("a\nb\tc") == "a⏎b␉c"


def test_cut_keeps_what_fits() -> None:
    assert cut("abcde", 5) == "abcde"
    assert cut("abcdef", 5) == "abcd…"
