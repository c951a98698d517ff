"""How long the main job would take for Llama 3.1 8B on GPUs that are not here.

    python benchmarks/predict.py [--suite S] [--methods M] [--dtype D] [--gpus N ...] [--set ...]

Arithmetic with data sheets and footprints (`runs/speed.py`, `runs/footprint.py`), nothing measured:
operations, bytes of weights, how many cards a cell needs, and how the cells pack.

An edit is placed by its bytes, alone on its card: its command starts vLLM after it. What fits no
card and is trained by the shared loop is spread by FSDP over the fewest cards of a node that hold
it, with divided batches where that is not enough, and trains in so many times less. All of its
cards are held until the cell has ended, although one of them asks the questions. What the loop does
not train cannot be spread: if it fits no card it is edited in main memory. Prints each cell, then
per number of GPUs, in nodes of eight, how long the whole takes.
"""

from __future__ import annotations

import argparse
import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from unlearn_bench.config import load_config
from unlearn_bench.runs.estimate import (
    SAVE_SECONDS,
    START_SECONDS,
    estimate_cells,
    estimate_preparation,
    footprint_of_edit,
    footprint_of_preparation,
)
from unlearn_bench.runs.footprint import (
    Footprint,
    Shape,
    devices_needed,
    measure_texts,
)
from unlearn_bench.runs.plan import Plan
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.runs.speed import CARDS, Card, Machine
from unlearn_bench.runs.steps import in_parts

CORES = 16  # for each card
NODE = 8  # cards that reach each other quickly
USABLE = 0.9  # of a card's bytes; CUDA's context and what lies between blocks have the rest
BESIDE_ENGINE = 0.55  # of a card's bytes, where one process goes from cell to cell


@dataclass(frozen=True)
class Placed:
    """A cell on so many cards of one node; 0: edited in main memory, asked on one card."""

    label: str
    role: str
    need: Footprint
    devices: int
    edit_seconds: float
    rest_seconds: float

    @property
    def cards(self) -> int:
        """What it holds until it has ended."""
        return max(self.devices, 1)

    @property
    def seconds(self) -> float:
        """The whole cell."""
        return self.edit_seconds + self.rest_seconds


def llama_8b() -> Shape:
    """The shape of Llama 3.1 8B."""
    layers, hidden, inner, keys, vocabulary = 32, 4096, 14_336, 1024, 128_256
    table = (vocabulary, hidden)
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": table, "model.norm.weight": (hidden,), "lm_head.weight": table,
    }  # fmt: skip
    for layer in range(layers):
        own = {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }  # fmt: skip
        tensors |= {f"model.layers.{layer}.{name}.weight": size for name, size in own.items()}
    return Shape(layers, hidden, inner, heads=32, vocabulary=vocabulary, tensors=tensors)


def place_cells(plan: Plan, shape: Shape, card: Card) -> Iterator[Placed]:
    """Every cell with the cards that it needs, and its seconds on them."""
    on_card, on_cores = Machine(CORES, card, bf16=True), Machine(CORES, bf16=True)
    texts = measure_texts(vars(plan.data))
    moved = START_SECONDS + SAVE_SECONDS * plan.parameters  # however many cards there are
    pairs = zip(estimate_cells(plan, on_card), estimate_cells(plan, on_cores), strict=True)
    for cell, (mine, slow) in zip(plan.cells, pairs, strict=True):
        facts = plan.cards[cell.method].facts
        shared = "training" in facts or "base" in facts.get("needs", ())
        for divisor in (1, 2, 4) if shared else (1,):
            divided = replace(cell, options=in_parts(cell.options, divisor) or cell.options)
            need = footprint_of_edit(plan, divided, shape, texts, on_card)
            devices = devices_needed(need, USABLE * card.bytes, NODE if shared else 1) or 0
            if devices:
                break
        edit = moved + (mine.edit_seconds - moved) / devices if devices else slow.edit_seconds
        label = cell.label + (f", batches / {divisor}" if divisor > 1 else "")
        yield Placed(label, cell.role, need, devices, edit, mine.evaluate_seconds)


def place_preparation(plan: Plan, shape: Shape, card: Card) -> tuple[int, float]:
    """Cards and seconds of training target and exact model, before any cell."""
    machine = Machine(CORES, card, bf16=True)
    need = footprint_of_preparation(plan, shape, machine)
    devices = devices_needed(need, USABLE * card.bytes, NODE)
    assert devices, "no node holds the preparation of this model"
    return devices, estimate_preparation(plan, machine) / devices


def packed(cells: Sequence[tuple[int, float]], nodes: Sequence[int]) -> float:
    """When the last cell ends. cells: cards and seconds of each; nodes: cards of each.

    The widest first, of those the longest, each on the node that has so many cards free first, and
    there on those that were idle least: the others wait for narrower cells. Raises ValueError where
    no node has as many cards as a cell needs.
    """
    free = [[0.0] * cards for cards in nodes]  # from when on each card is, in order
    for width, seconds in sorted(cells, reverse=True):
        node = min((own for own in free if len(own) >= width), key=lambda own: own[width - 1])
        start = node[width - 1]
        last = bisect.bisect_right(node, start)
        node[last - width : last] = [start + seconds] * width
        node.sort()
    return max(end for own in free for end in own)


def nodes_of(cards: int) -> list[int]:
    """So many cards, in nodes of eight and what is left."""
    whole, left = divmod(cards, NODE)
    return [NODE] * whole + [left] * bool(left)


def print_cells(cells: Sequence[Placed], card: Card) -> None:
    print(f"{'cell':40}{'GB':>7}{'cards':>7}{'edit, s':>9}{'rest, s':>9}")
    for cell in cells:
        beside = "" if cell.need.total <= BESIDE_ENGINE * card.bytes else "  not beside vLLM"
        where = cell.devices or "host"
        figures = f"{cell.need.total / 1e9:7.0f}{where:>7}{cell.edit_seconds:9.0f}"
        print(f"{cell.label:40}{figures}{cell.rest_seconds:9.0f}{beside}")


def print_totals(name: str, cells: Sequence[Placed], first: float, gpus: Sequence[int]) -> None:
    held = sum(cell.cards * cell.seconds for cell in cells) / 3600
    used = sum(cell.devices * cell.edit_seconds + cell.rest_seconds for cell in cells) / 3600
    print(f"{name}: {len(cells)} cells hold {held:.1f} GPU hours and use {used:.1f} of them")
    sizes = [(cell.cards, cell.seconds) for cell in cells]
    for count in gpus:
        minutes = (first + packed(sizes, nodes_of(count))) / 60
        print(f"{count:5} GPUs: {minutes:8.0f} min")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="full")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--data", help="folder of released data sets; else what the package has")
    parser.add_argument("--dtype", default="bfloat16", help="what `auto` is on CUDA")
    parser.add_argument("--gpus", type=int, nargs="*", default=[8, 100])
    parser.add_argument("--card", default="9.0", help="compute capability; 9.0 is an H100")
    parser.add_argument("--set", nargs="*", default=[], help="of methods, as in npo.lora=true")
    asked = parser.parse_args()
    silence_libraries(verbose=False)
    given = {"suite": asked.suite, "methods": asked.methods, "seeds": asked.seeds}
    given |= {"data": asked.data} if asked.data else {}
    small = resolve_plan(load_config({**given, "set": asked.set}), Reporter())
    shape = llama_8b()
    plan = replace(
        small,
        parameters=shape.parameters,
        dtype=asked.dtype,
        output=small.output / "none",  # what cells took here must not stand in for arithmetic
    )
    major, minor = map(int, asked.card.split("."))
    card = CARDS[major, minor]
    cells = list(place_cells(plan, shape, card))
    print_cells(cells, card)
    devices, first = place_preparation(plan, shape, card)
    print(f"preparing the models: {first / 60:.0f} min on {devices} cards, before all")
    print_totals("all", cells, first, asked.gpus)
    own = [cell for cell in cells if cell.role in ("method", "exact")]
    print_totals("methods and the exact model", own, first, asked.gpus)


if __name__ == "__main__":
    main()
