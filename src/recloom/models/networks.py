"""What reads a sequence: vectors of events come in, one state a step goes out.

Every network takes the same three things and is chosen by name, so that all else is equal when they are compared.

Shapes: B histories, L steps, D width of the network, H heads, A width of a head; where histories begin alike, P steps
that they share, S further steps of each, T = P + B * S steps in one row.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.models.dropout import Dropout
from recloom.models.time_buckets import GAP_BUCKETS, gap_buckets


class SequenceNetwork(nn.Module):
    """A network over right-padded sequences."""

    is_causal: ClassVar[bool] = True
    """Whether a state depends on the events up to its own step alone."""

    @abstractmethod
    def forward(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        """Return a state for each step, shape (B, L, D).

        Args:
            event_BLD: What happened at each step.
            is_event_BL: False for padding, which comes last and changes no state of an event.
            timestamp_BL: When it happened, UTC seconds, int64; 0 for padding.
        """

    def last_state(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        """Return the state of the last event of each history, shape (B, D): what `forward` says of it."""
        return _last(self.forward(event_BLD, is_event_BL, timestamp_BL), is_event_BL)

    @abstractmethod
    def branches(self, trunk_1PD: Tensor, branch_BSD: Tensor, timestamp_BL: Tensor) -> Tensor:
        """Return the states of the steps after those that all histories share, shape (B, S, D).

        The same as `forward` gives of whole histories, for less work: what is shared is read once. For causal networks.

        Args:
            trunk_1PD: The steps that the histories share.
            branch_BSD: The steps in which they differ, right-padded.
            timestamp_BL: When all steps happened, as in `forward`.
        """


class Recurrent(SequenceNetwork):
    """GRU, LSTM or plain RNN.

    Source: Hidasi et al. (2016), "Session-based Recommendations with Recurrent Neural Networks",
    https://arxiv.org/abs/1511.06939
    """

    cells: ClassVar[dict[str, Callable[..., nn.RNNBase]]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}

    def __init__(self, cell: str, width: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        between_layers = dropout if num_layers > 1 else 0.0
        self.cell = self.cells[cell](width, width, num_layers, batch_first=True, dropout=between_layers)

    def forward(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        state_BLD, _ = self.cell(event_BLD)
        return state_BLD

    def branches(self, trunk_1PD: Tensor, branch_BSD: Tensor, timestamp_BL: Tensor) -> Tensor:
        _, memory = self.cell(trunk_1PD)
        several = [part.expand(-1, len(branch_BSD), -1).contiguous() for part in _parts(memory)]
        state_BSD, _ = self.cell(branch_BSD, tuple(several) if len(several) > 1 else several[0])
        return state_BSD


def _parts(memory: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what a recurrent cell remembers, of which an LSTM has two."""
    return (memory,) if isinstance(memory, Tensor) else memory


class GatedFeedForward(nn.Module):
    """SwiGLU: one linear map gates another. Source: Shazeer (2020), https://arxiv.org/abs/2002.05202."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(width, 4 * width)
        self.out = nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        gate, value = self.gate_and_value(hidden_BLD).chunk(2, dim=-1)
        return self.out(self.dropout(functional.silu(gate) * value))


class AttentionBlock(nn.Module):
    """Self-attention, then a gated feed-forward layer, each normalised before and added to what came in."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BLD: Tensor, visible_BLL: Tensor | None) -> Tensor:
        """Return new states.

        Args:
            hidden_BLD: States of the layer below.
            visible_BLL: Which steps (last axis) each step may look at. None: itself and those before it.
        """
        qkv = self.to_qkv(self.attention_norm(hidden_BLD)).chunk(3, dim=-1)
        query, key, value = (_heads(part, self.num_heads) for part in qkv)
        mask = None if visible_BLL is None else visible_BLL[:, None]
        mixed_BHLA = functional.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        return self._added(hidden_BLD, mixed_BHLA)

    def last(self, hidden_BLD: Tensor, is_event_BL: Tensor) -> Tensor:
        """Return the new state of the last event of each history alone, shape (B, 1, D), which sees all events."""
        normed_BLD = self.attention_norm(hidden_BLD)
        width = hidden_BLD.shape[-1]
        weight, bias = self.to_qkv.weight, self.to_qkv.bias
        query = functional.linear(_last(normed_BLD, is_event_BL)[:, None], weight[:width], bias[:width])
        key, value = functional.linear(normed_BLD, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (_heads(part, self.num_heads) for part in (query, key, value))
        mixed_BH1A = functional.scaled_dot_product_attention(query, key, value, is_event_BL[:, None, None])
        return self._added(_last(hidden_BLD, is_event_BL)[:, None], mixed_BH1A)

    def _added(self, hidden_BLD: Tensor, mixed_BHLA: Tensor) -> Tensor:
        """Return states with what attention mixed and the feed-forward layer added."""
        hidden_BLD = hidden_BLD + self.dropout(self.attention_out(mixed_BHLA.transpose(1, 2).flatten(2)))
        return hidden_BLD + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_BLD)))


class SASRec(SequenceNetwork):
    """Causal self-attention with learned positions, counted from the first event of the window.

    Departures from Kang and McAuley (2018, https://arxiv.org/abs/1808.09781): normalisation before each layer
    and a gated feed-forward layer, as in eSASRec (Tikhonovich et al. 2025, https://arxiv.org/abs/2508.06450); no
    dropout of attention weights.
    """

    position_std: ClassVar[float] = 0.3
    """Spread of the first positions: events have entries of about 0.5, and order has to be seen beside them."""

    def __init__(self, width: int, num_heads: int, num_layers: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(max_length + 1, width))
        nn.init.normal_(self.positions, std=self.position_std)
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        return self._read(event_BLD + self.positions[: event_BLD.shape[1]], self._visible(is_event_BL))

    def last_state(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        hidden_BLD, visible_BLL = event_BLD + self.positions[: event_BLD.shape[1]], self._visible(is_event_BL)
        *below, top = self.blocks
        for block in below:
            hidden_BLD = block(hidden_BLD, visible_BLL)
        assert isinstance(top, AttentionBlock)
        return self.norm(top.last(hidden_BLD, is_event_BL).squeeze(1))

    def _visible(self, is_event_BL: Tensor) -> Tensor | None:
        return None if self.is_causal else is_event_BL[:, None, :].expand(-1, is_event_BL.shape[1], -1)

    def branches(self, trunk_1PD: Tensor, branch_BSD: Tensor, timestamp_BL: Tensor) -> Tensor:
        states = []
        for some_KSD in _few_at_once(trunk_1PD, branch_BSD):
            row = _OneRow(trunk_1PD, some_KSD)
            states.append(row.parted(self._read(row.event_1TD + self.positions[row.step_T], row.visible_TT[None])))
        return torch.cat(states)

    def _read(self, hidden_BLD: Tensor, visible_BLL: Tensor | None) -> Tensor:
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, visible_BLL)
        return self.norm(hidden_BLD)


class BERT4Rec(SASRec):
    """Attention in both directions, trained to fill gaps: the state of a masked step tells what was there.

    Departures from Sun et al. (2019, https://arxiv.org/abs/1904.06690): the same blocks as `SASRec` here.
    """

    is_causal = False
    position_std = 1.0
    """A masked step knows nothing but where it is."""


class HSTU(SequenceNetwork):
    """Pointwise attention without a softmax, biased by how far apart two events are in steps and in time.

    Departure from Zhai et al. (2024, https://arxiv.org/abs/2402.17152): the attention is divided by the number of
    steps that are looked at, not by a constant length.
    """

    def __init__(self, width: int, num_heads: int, num_layers: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HSTUBlock(width, num_heads, max_length, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        steps_L = torch.arange(event_BLD.shape[1], device=event_BLD.device)
        return self._read(event_BLD, steps_L, timestamp_BL, steps_L <= steps_L[:, None])

    def branches(self, trunk_1PD: Tensor, branch_BSD: Tensor, timestamp_BL: Tensor) -> Tensor:
        shared, states = trunk_1PD.shape[1], []
        own_times = _few_at_once(trunk_1PD, timestamp_BL[:, shared:])
        for some_KSD, time_KS in zip(_few_at_once(trunk_1PD, branch_BSD), own_times, strict=True):
            row = _OneRow(trunk_1PD, some_KSD)
            timestamp_1T = torch.cat([timestamp_BL[:1, :shared], time_KS.reshape(1, -1)], dim=1)
            states.append(row.parted(self._read(row.event_1TD, row.step_T, timestamp_1T, row.visible_TT)))
        return torch.cat(states)

    def _read(self, hidden_BLD: Tensor, step_L: Tensor, timestamp_BL: Tensor, visible_LL: Tensor) -> Tensor:
        steps_back_LL = (step_L[:, None] - step_L).clamp_min(0)
        gap_BLL = gap_buckets(timestamp_BL[:, :, None] - timestamp_BL[:, None, :])
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, steps_back_LL, gap_BLL, visible_LL)
        return self.norm(hidden_BLD)


class HSTUBlock(nn.Module):
    """One layer of `HSTU`."""

    def __init__(self, width: int, num_heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_in, self.norm_mixed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_uqkv, self.out = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.step_bias = nn.Parameter(torch.zeros(max_length + 1))
        self.gap_bias = nn.Parameter(torch.zeros(GAP_BUCKETS))
        self.dropout = Dropout(dropout)

    def forward(self, hidden_BLD: Tensor, steps_back_LL: Tensor, gap_BLL: Tensor, visible_LL: Tensor) -> Tensor:
        uqkv_BLD = functional.silu(self.to_uqkv(self.norm_in(hidden_BLD)))
        gate_BLD, *qkv = uqkv_BLD.chunk(4, dim=-1)
        query, key, value = (_heads(part, self.num_heads) for part in qkv)
        bias_BLL = self.step_bias[steps_back_LL] + self.gap_bias[gap_BLL]
        weight_BHLL = functional.silu(query @ key.transpose(2, 3) + bias_BLL[:, None]) * visible_LL
        mixed_BLD = ((weight_BHLL @ value) / visible_LL.sum(dim=1, keepdim=True)).transpose(1, 2).flatten(2)
        return hidden_BLD + self.out(self.dropout(self.norm_mixed(mixed_BLD) * gate_BLD))


def _few_at_once(trunk_1PD: Tensor, branch_BS: Tensor) -> Sequence[Tensor]:
    """Part branches so that a row of them is at most twice as long as a history: what sees pairs costs its square."""
    length = branch_BS.shape[1]
    return torch.split(branch_BS, max(1, (trunk_1PD.shape[1] + length) // length))


class _OneRow:
    """Histories that begin alike, written into one row: what they share, then the rest of each behind the other."""

    def __init__(self, trunk_1PD: Tensor, branch_BSD: Tensor) -> None:
        self._branch_shape, self._shared = branch_BSD.shape, trunk_1PD.shape[1]
        num_branches, length, _ = branch_BSD.shape
        self.event_1TD = torch.cat([trunk_1PD, branch_BSD.flatten(0, 1)[None]], dim=1)
        after_S = torch.arange(self._shared, self._shared + length)
        self.step_T = torch.cat([torch.arange(self._shared), after_S.repeat(num_branches)])
        """Which step of its history each one is."""
        branch_T = torch.cat([torch.full((self._shared,), -1), torch.arange(num_branches).repeat_interleave(length)])
        same_TT = (branch_T[:, None] == branch_T) | (branch_T == -1)
        self.visible_TT = same_TT & (self.step_T <= self.step_T[:, None])
        """Whether a step is one that another (first axis) follows in its history, or that step itself."""

    def parted(self, state_1TD: Tensor) -> Tensor:
        """Return the states of the steps that are not shared, shape (B, S, D)."""
        return state_1TD[0, self._shared :].view(self._branch_shape)


def _last(values_BLD: Tensor, is_event_BL: Tensor) -> Tensor:
    """Return the values of the last event of each history, shape (B, D)."""
    return values_BLD[torch.arange(len(values_BLD), device=values_BLD.device), is_event_BL.sum(dim=1) - 1]


def _heads(values_BLD: Tensor, num_heads: int) -> Tensor:
    """Part the width into heads, shape (B, H, L, A)."""
    batch, length, width = values_BLD.shape
    return values_BLD.view(batch, length, num_heads, width // num_heads).transpose(1, 2)
