"""Log-likelihoods of continuations under a causal language model, on the token tree.

One implementation serves every engine: vLLM and transformers differ in how they generate, never in
how a likelihood is scored. Logits are computed only at nodes that predict a continuation token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from unlearn_bench.engine.linear import multiply_with_onednn
from unlearn_bench.engine.token_tree import Group, Request, Row, plan_groups
from unlearn_bench.schema import TokenLikelihoods

# Nodes per forward pass: on CPU what its caches hold between two products, a tenth faster than
# 2,048; a GPU wants many.
BATCH_TOKENS = {"cpu": 384, "cuda": 16_384}
LOGIT_ROWS = 128  # rows of the (rows, vocabulary) logit block: 25 MB in fp32 at 49k tokens
TREE_TOLERANCE = 5e-3  # nats between tree and plain scoring of the self-check, any dtype's noise

Progress = Callable[[int, int], None]


class Likelihood(tuple[float, bool]):
    """(summed log-probability in nats, greedy?) as lm-eval wants it, with its per-token parts.

    token_log_probs: (n,) float64. token_is_greedy: (n,) bool, whether each continuation token is
    the arg max given all tokens before it. moments: (n, 2) float64, mean and standard deviation of
    log p over the vocabulary under p itself, or None where nobody asked.
    """

    token_log_probs: NDArray[np.float64]
    token_is_greedy: NDArray[np.bool_]
    moments: NDArray[np.float64] | None

    def __new__(
        cls,
        token_log_probs: NDArray[np.float64],
        token_is_greedy: NDArray[np.bool_],
        moments: NDArray[np.float64] | None = None,
    ) -> Likelihood:
        """All of one continuation."""
        self = super().__new__(cls, (float(token_log_probs.sum()), bool(token_is_greedy.all())))
        self.token_log_probs, self.token_is_greedy = token_log_probs, token_is_greedy
        self.moments = moments
        return self

    def tokens(self) -> TokenLikelihoods:
        """The per-token parts as they are stored."""
        means, deviations = self.moments.T if self.moments is not None else ((), ())
        return TokenLikelihoods(
            log_probs=tuple(map(float, self.token_log_probs)),
            greedy=tuple(map(bool, self.token_is_greedy)),
            means=tuple(map(float, means)),
            deviations=tuple(map(float, deviations)),
        )


@dataclass(frozen=True)
class _Edges:
    """Where each request's predictions stand inside one batch: flat (row, node, target) lists."""

    owners: list[tuple[int, int]]  # (request index, number of tokens)
    rows: list[int]
    nodes: list[int]
    targets: list[int]


class LikelihoodScorer:
    """Scores requests with one model. `tree=False` reads every request on its own (the reference).

    The constructor proves the tree path on the model at hand: architectures whose attention does
    not honour an explicit mask (or that post-process logits) fall back to plain scoring.
    """

    def __init__(
        self, model: PreTrainedModel, *, tree: bool | None = None, batch_divisor: int = 1
    ) -> None:
        self.model = multiply_with_onednn(model.eval())
        self.device = next(model.parameters()).device
        self.batch_tokens = BATCH_TOKENS[self.device.type] // batch_divisor
        self.tree = self._tree_is_exact() if tree is None else tree

    def score(
        self, requests: Sequence[Request], progress: Progress = lambda done, total: None
    ) -> list[Likelihood]:
        """Likelihoods in the order of `requests`; equal requests are scored once."""
        unique = {request: index for index, request in enumerate(dict.fromkeys(requests))}
        distinct = list(unique)
        groups = plan_groups(distinct) if self.tree else _plain_groups(distinct)
        total, done = sum(group.tokens for group in groups), 0
        results: dict[int, Likelihood] = {}
        with torch.inference_mode():
            for group in groups:
                for answered, tokens in self._score_group(distinct, group):
                    results.update(answered)
                    done += tokens
                    progress(done, total)
        return [results[unique[request]] for request in requests]

    def _score_group(
        self, requests: Sequence[Request], group: Group
    ) -> Iterator[tuple[dict[int, Likelihood], int]]:
        trunk = self._trunk_cache(group.trunk)
        for rows in batch_rows(group.rows, self.batch_tokens):
            hidden = self._hidden_states(rows, group.trunk, trunk)
            yield self._read_edges(requests, rows, hidden), sum(len(row.tokens) for row in rows)

    def _trunk_cache(self, trunk: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the trunk, per layer, each (1, kv_heads, P, head_dim)."""
        if not trunk:
            return []
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([trunk], device=self.device)
        self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _hidden_states(
        self,
        rows: list[Row],
        trunk: tuple[int, ...],
        cached: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """(B, T, d) final hidden states of every node; rows are padded on the right."""
        width = max(len(row.tokens) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row.tokens)] = torch.tensor(row.tokens)
            positions[index, : len(row.tokens)] = torch.tensor(row.depths)
        plain = not trunk and all(row.is_chain for row in rows)
        # Right padding is invisible under causal attention, so chains need no mask at all.
        mask = None if plain else self._mask(rows, len(trunk), width)
        cache = DynamicCache(config=self.model.config) if cached else None
        for layer, (keys, values) in enumerate(cached):
            assert cache is not None
            size = (len(rows), -1, -1, -1)
            cache.update(keys.expand(size), values.expand(size), layer)
        output = self.model.base_model(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _mask(self, rows: list[Row], prefix: int, width: int) -> torch.Tensor:
        """(B, 1, T, P + T) additive mask: 0 on the trunk and on ancestors, −inf elsewhere."""
        allowed = np.zeros((len(rows), width, prefix + width), dtype=np.bool_)
        allowed[:, :, :prefix] = True
        allowed[:, np.arange(width), prefix + np.arange(width)] = True  # padding sees itself
        for index, row in enumerate(rows):
            size = len(row.tokens)
            allowed[index, :size, prefix : prefix + size] = row.ancestors()
        dtype = self.model.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype)
        mask.masked_fill_(torch.from_numpy(~allowed), torch.finfo(dtype).min)
        return mask.unsqueeze(1).to(self.device)

    def _read_edges(
        self, requests: Sequence[Request], rows: list[Row], hidden: torch.Tensor
    ) -> dict[int, Likelihood]:
        edges = _collect_edges(requests, rows)
        # Options that share their first tokens are predicted from the same nodes: a node's logits
        # are computed once, and every token asked of it is read from them.
        flat = np.array(edges.rows) * hidden.shape[1] + np.array(edges.nodes)
        places, place_of_edge = np.unique(flat, return_inverse=True)
        states = hidden.flatten(0, 1)[torch.from_numpy(places).to(self.device)]
        wants = [requests[index].moments for index, count in edges.owners for _ in range(count)]
        log_probs, greedy, moments = self._log_probs(
            states, place_of_edge, np.array(edges.targets), moments=any(wants)
        )
        answered, begin = {}, 0
        for index, count in edges.owners:
            own = slice(begin, begin + count)
            wanted = moments[own] if requests[index].moments else None
            answered[index] = Likelihood(log_probs[own], greedy[own], wanted)
            begin += count
        return answered

    def _log_probs(
        self,
        states: torch.Tensor,
        place_of_edge: NDArray[np.int64],
        targets: NDArray[np.int64],
        *,
        moments: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """Of each edge's target after its state: log-probability, greedy, and with `moments` (E, 2)
        those of the vocabulary there. states: (P, d); the others (E,), P ≤ E.
        """
        log_probs = np.empty(len(targets))
        greedy = np.empty(len(targets), dtype=np.bool_)
        spread = np.full((len(targets), 2), np.nan)
        order = np.argsort(place_of_edge, kind="stable")
        for begin in range(0, len(states), LOGIT_ROWS):
            block = states[begin : begin + LOGIT_ROWS]
            logits = self.model.get_output_embeddings()(block).float()
            low, high = np.searchsorted(place_of_edge, [begin, begin + len(block)], sorter=order)
            edges = order[low:high]
            place = torch.from_numpy(place_of_edge[edges] - begin).to(self.device)
            wanted = torch.from_numpy(targets[edges]).to(self.device)
            logs = logits.log_softmax(dim=1)
            log_probs[edges] = logs[place, wanted].double().cpu().numpy()
            greedy[edges] = (logits.argmax(dim=1)[place] == wanted).cpu().numpy()
            if moments:
                spread[edges] = vocabulary_moments(logs)[place].cpu().numpy()
        return log_probs, greedy, spread

    def _tree_is_exact(self) -> bool:
        """Score a few branching requests both ways, and once through the model's own logits."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        generator = np.random.default_rng(0)
        ids = [int(token) for token in generator.integers(0, vocabulary, 64)]
        context = tuple(ids[:48])
        requests = [
            Request(context, tuple(ids[48:54])),
            Request(context, (*ids[48:50], *ids[54:58])),
            Request((*context[:40], *ids[58:62]), tuple(ids[62:64])),
        ]
        with torch.inference_mode():
            groups = plan_groups(requests, min_trunk=8, max_row=32)
            results: dict[int, Likelihood] = {}
            try:
                for group in groups:
                    for answered, _ in self._score_group(requests, group):
                        results.update(answered)
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
                return False  # the architecture does not take a mask or a cache of this form
            plain = [self._own_logits(request) for request in requests]
        return all(
            abs(results[index][0] - value) <= TREE_TOLERANCE * max(1.0, abs(value))
            for index, value in enumerate(plain)
        )

    def _own_logits(self, request: Request) -> float:
        ids = torch.tensor([request.context + request.continuation], device=self.device)
        logits = self.model(input_ids=ids).logits[0, len(request.context) - 1 : -1].float()
        targets = torch.tensor(request.continuation, device=self.device)
        return float(logits.log_softmax(-1).gather(1, targets[:, None]).sum())


def vocabulary_moments(log_probs: torch.Tensor) -> torch.Tensor:
    """(n, 2) mean and standard deviation of log p(z) over z ~ p. log_probs: (n, vocabulary).

    Source: Zhang et al. 2024 (arXiv 2404.02936), eq. 3: what min-k++ normalises by.
    """
    chance = log_probs.exp()
    mean = (chance * log_probs).sum(dim=1)
    square = (chance * log_probs.square()).sum(dim=1)
    return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1)


def batch_rows(rows: Sequence[Row], budget: int) -> Iterator[list[Row]]:
    """Rows of similar length together, at most `budget` padded nodes per batch."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.tokens), reverse=True):
        if batch and len(batch[0].tokens) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _plain_groups(requests: Sequence[Request]) -> list[Group]:
    rows = [plan_groups([request])[0].rows[0] for request in requests]
    for index, row in enumerate(rows):
        row.edges = {index: row.edges.pop(0)}
    return [Group((), rows)]


def _collect_edges(requests: Sequence[Request], rows: list[Row]) -> _Edges:
    edges = _Edges([], [], [], [])
    for position, row in enumerate(rows):
        for index, nodes in row.edges.items():
            edges.owners.append((index, len(nodes)))
            edges.rows.extend([position] * len(nodes))
            edges.nodes.extend(nodes)
            edges.targets.extend(requests[index].continuation)
    return edges
