"""How cells pack onto GPUs that are not here: schedules worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.predict import Placed, llama_8b, nodes_of, packed
from unlearn_bench.runs.footprint import Footprint


def test_narrow_cells_go_to_the_card_that_is_free_first() -> None:
    """5 and 3 begin; 2 follows on the card of 3, and 4 on either at 5."""
    assert packed([(1, 3.0), (1, 5.0), (1, 4.0), (1, 2.0)], [2]) == 7
    assert packed([(1, 3.0), (1, 5.0), (1, 4.0), (1, 2.0)], [8]) == 5


def test_a_wide_cell_holds_all_its_cards_and_narrow_ones_use_what_is_left() -> None:
    """Two of six cards each can only follow one another; the two cards beside them take the rest
    meanwhile, and no card that they could use is kept waiting.
    """
    wide = [(6, 10.0), (6, 10.0)]
    assert packed(wide, [8]) == 20
    assert packed([*wide, *[(1, 10.0)] * 4], [8]) == 20
    assert packed([*wide, *[(1, 10.0)] * 5], [8]) == 30
    assert packed(wide, [8, 8]) == 10


def test_a_cell_lies_within_one_node() -> None:
    """Two nodes of four have eight cards, and no place for a cell of six."""
    assert packed([(4, 1.0), (4, 1.0)], [4, 4]) == 1
    with pytest.raises(ValueError, match="empty"):
        packed([(6, 1.0)], [4, 4])
    assert nodes_of(100) == [8] * 12 + [4]
    assert nodes_of(8) == [8]


def test_the_model_is_the_one_that_is_named() -> None:
    """8,030,261,248 parameters: https://huggingface.co/meta-llama/Llama-3.1-8B, tables untied."""
    assert llama_8b().parameters == 8_030_261_248


def test_a_cell_edited_in_main_memory_still_holds_the_card_that_answers() -> None:
    cell = Placed("memit", "method", Footprint(0.0, 1.0), 0, 40.0, 20.0)
    assert (cell.cards, cell.seconds) == (1, 60)
