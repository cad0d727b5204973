"""`weave` as one graph of tensors: histories and requests come in, the best items and their scores go out.

The model itself prepares its input with numpy; here every step is a tensor operation that ONNX knows, on weights that
are fixed. `tests/compression/test_onnx_export.py` holds the two equal.

Shapes: B histories, L steps, I catalogue (with the padding row), D width of a tower, T towers, M members of a model
of shards (else one), P features of popularity, G features of a request, S items to leave out, K length of lists, C
candidates; N blocks of W numbers make a row of 8-bit numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.compression.members import weaves_of
from recloom.dataset import PADDING_INDEX
from recloom.models import Model
from recloom.models.circumstances import SESSION_GAP_SECONDS, SESSION_STEPS, Circumstances
from recloom.models.networks import Recurrent, SequenceNetwork
from recloom.models.popularity_prior import PopularityPrior, multiplier
from recloom.models.ranking import fixed_copy
from recloom.models.time_buckets import gap_buckets, hours, weekdays
from recloom.models.weave import Tower
from recloom.tensor_files import to_int8

MARGIN = 128
"""Candidates that 8-bit products find beyond the list, whose order is then settled in single precision."""
ON_GRID = 1e-3
"""How far from a multiple of its row's step an entry may be, in steps, for a row that was stored in 8 bits."""


class WeaveGraph(nn.Module):
    """A fitted `weave`, or the members of a model of shards side by side, from indices to ranked lists."""

    length_IT: Tensor

    def __init__(self, model: Model, list_length: int) -> None:
        """Fix a model's weights.

        Args:
            model: Fitted. Where its item vectors come from 8-bit numbers, the graph holds those.
            list_length: How many items are answered; no more than there are.
        """
        super().__init__()
        fixed = weaves_of(fixed_copy(model))
        towers = [tower for member in fixed for tower in member._towers]
        self.list_length = list_length
        self.towers = nn.ModuleList(TowerGraph(tower) for tower in towers)
        self.width = fixed[0].config.embedding_dim
        rows_I = torch.arange(fixed[0].num_items + 1)
        with torch.no_grad():
            # Events read the vectors as they are, scores read them scaled: the table holds the latter, and lengths.
            raw = [tower.items(rows_I) for tower in towers]
            scaled = [tower._scaled(vectors_ID).float() for tower, vectors_ID in zip(towers, raw, strict=True)]
            lengths = [_ratio(vectors_ID, scaled_ID) for vectors_ID, scaled_ID in zip(raw, scaled, strict=True)]
        table = Int8Items if all(map(is_on_grid, scaled)) else FloatItems
        self.items = table(scaled, torch.cat([member.prior.features_IP.float() for member in fixed], dim=1))
        self.register_buffer("length_IT", torch.stack(lengths, dim=1))
        self.priors = nn.ModuleList(member.prior for member in fixed)
        self.float().eval()

    def forward(
        self,
        item_index_BL: Tensor,
        timestamp_BL: Tensor,
        behavior_index_BL: Tensor,
        context_BL: Sequence[Tensor],
        user_index_B: Tensor,
        request_timestamp_B: Tensor,
        request_context_B: Sequence[Tensor],
        excluded_BS: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the best items and their scores, best first, each of shape (B, K); -inf for what may not be shown.

        Args:
            item_index_BL: Items of each history, oldest first, `PADDING_INDEX` at the end.
            timestamp_BL: UTC seconds, 0 where unknown.
            behavior_index_BL: What each interaction was.
            context_BL: Columns of words that the model reads, then columns of numbers.
            user_index_B: Who it is, `PADDING_INDEX` for somebody unknown.
            request_timestamp_B: When the next item is asked for, UTC seconds, 0 where unknown.
            request_context_B: As `context_BL`.
            excluded_BS: Items that may not be shown; `PADDING_INDEX` fills up.
        """
        gap, hour, weekday, session_step = event_codes(timestamp_BL)
        codes = [gap, hour, weekday, behavior_index_BL, session_step, *context_BL]
        is_event_BL = item_index_BL != PADDING_INDEX
        last_B1 = (is_event_BL.sum(dim=1, keepdim=True) - 1).clamp_min(0)
        last_time_B = timestamp_BL.gather(1, last_B1).squeeze(1)
        is_known_B = (request_timestamp_B > 0) & (last_time_B > 0)
        gap_B = torch.where(is_known_B, (request_timestamp_B - last_time_B).clamp_min(0), -1)
        requests = [*moment_codes(request_timestamp_B, gap_B), *request_context_B]
        user_index_BL = user_index_B[:, None].expand(-1, item_index_BL.shape[1])
        rows_BLD, length_BLT = self.items.rows(item_index_BL), functional.embedding(item_index_BL, self.length_IT)
        parts = []
        for number, tower in enumerate(self.towers):
            begin = number * self.width
            item_BLD = rows_BLD[:, :, begin : begin + self.width] * length_BLT[:, :, number : number + 1]
            parts.append(tower(item_BLD, is_event_BL, timestamp_BL, codes, user_index_BL, requests, user_index_B))
        # What popularity adds, as `PopularityPrior.extend`; of several members the mean counts.
        num_members = len(self.priors)
        towers_each = len(parts) // num_members
        queries, popular = [], []
        for member, prior in enumerate(self.priors):
            assert isinstance(prior, PopularityPrior)
            known_BG = prior.what_is_known(item_index_BL, timestamp_BL, request_timestamp_B)
            weight_BP = known_BG.to(prior.weight_GP) @ prior.weight_GP
            query_BD = torch.cat(parts[member * towers_each : (member + 1) * towers_each], dim=1)
            queries.append(query_BD * multiplier(weight_BP) / num_members)
            popular.append(weight_BP[:, 1:] / num_members)
        return self.items.best(torch.cat(queries, dim=1), torch.cat(popular, dim=1), excluded_BS, self.list_length)


class FloatItems(nn.Module):
    """Item vectors in single precision."""

    items_ID: Tensor

    def __init__(self, vectors: Sequence[Tensor], popularity_IP: Tensor) -> None:
        """Put vectors of each tower, each of shape (I, D), side by side."""
        super().__init__()
        self.width = sum(vectors_ID.shape[1] for vectors_ID in vectors)
        self.register_buffer("items_ID", torch.cat([*vectors, popularity_IP], dim=1))

    def rows(self, index: Tensor) -> Tensor:
        """Return the vectors of some items, shape (..., D)."""
        return functional.embedding(index, self.items_ID)[..., : self.width]

    def best(self, query_BD: Tensor, weight_BP: Tensor, excluded_BS: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the best items and their scores, each of shape (B, count)."""
        score_BI = functional.linear(torch.cat([query_BD, weight_BP], dim=1), self.items_ID)
        score_BK, item_index_BK = torch.topk(_without(score_BI, excluded_BS), count)
        return item_index_BK, score_BK


class Int8Items(nn.Module):
    """Item vectors in 8 bits: products of 8-bit numbers find candidates, single precision settles their order.

    The operator is ONNX Runtime's own: `com.microsoft::MatMulNBits`, which rounds each query to 8 bits by itself, so
    that an answer does not depend on who else is asking.
    """

    steps_INW: Tensor
    scale_IT: Tensor
    scale_IN: Tensor
    popularity_IP: Tensor

    def __init__(self, vectors: Sequence[Tensor], popularity_IP: Tensor) -> None:
        """Take vectors of each tower, each of shape (I, D) and with a scale a row of its own."""
        super().__init__()
        self.width, self.num_towers = vectors[0].shape[1], len(vectors)
        block = 64 if self.width > 32 else 32
        self.padding = (0, -self.width % block)
        steps, scales = zip(*map(to_int8, vectors), strict=True)
        # 128 stands for 0.
        padded_ID = torch.cat([functional.pad(steps_ID, self.padding).short() + 128 for steps_ID in steps], dim=1)
        self.register_buffer("steps_INW", padded_ID.to(torch.uint8).view(len(padded_ID), -1, block))
        self.register_buffer("scale_IT", torch.stack(scales, dim=1))
        blocks_each = self.steps_INW.shape[1] // self.num_towers
        self.register_buffer("scale_IN", self.scale_IT.repeat_interleave(blocks_each, dim=1).flatten())
        self.register_buffer("popularity_IP", popularity_IP)

    def rows(self, index: Tensor) -> Tensor:
        """Return the vectors of some items, those of all towers side by side."""
        # Not an embedding, which wants a matrix: the exporter would store the table once more in that shape.
        steps = self.steps_INW.index_select(0, index.flatten()).flatten(1).float() - 128
        steps = steps.view(-1, self.num_towers, steps.shape[1] // self.num_towers)
        scaled = steps * self.scale_IT.index_select(0, index.flatten())[:, :, None]
        return scaled[:, :, : self.width].reshape(*index.shape, self.num_towers * self.width)

    def best(self, query_BD: Tensor, weight_BP: Tensor, excluded_BS: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the best items and their scores, each of shape (B, count)."""
        size, blocks, block = self.steps_INW.shape
        padded_BTD = functional.pad(query_BD.reshape(-1, self.num_towers, self.width), self.padding)
        rough_BI = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (padded_BTD.flatten(1), self.steps_INW, self.scale_IN),
            {"K": blocks * block, "N": size, "bits": 8, "block_size": block, "accuracy_level": 4},
            dtype=query_BD.dtype,
            shape=(query_BD.shape[0], size),
            version=1,
        )
        rough_BI = _without(rough_BI + functional.linear(weight_BP, self.popularity_IP), excluded_BS)
        rough_BC, candidate_BC = torch.topk(rough_BI, min(count + MARGIN, size))
        score_BC = (self.rows(candidate_BC) @ query_BD[:, :, None]).squeeze(2)
        score_BC = score_BC + (functional.embedding(candidate_BC, self.popularity_IP) @ weight_BP[:, :, None]).squeeze(
            2
        )
        score_BK, place_BK = torch.topk(torch.where(torch.isinf(rough_BC), -torch.inf, score_BC), count)
        return candidate_BC.gather(1, place_BK), score_BK


class TowerGraph(nn.Module):
    """A `Tower` without its item table: vectors of events come in, queries go out."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.network = _exportable(tower.network)
        self.circumstances = CircumstancesGraph(tower.circumstances)
        self.request = None if tower.request is None else CircumstancesGraph(tower.request)

    def forward(
        self,
        item_BLD: Tensor,
        is_event_BL: Tensor,
        timestamp_BL: Tensor,
        codes: Sequence[Tensor],
        user_index_BL: Tensor,
        requests: Sequence[Tensor],
        user_index_B: Tensor,
    ) -> Tensor:
        """Return a query for each history, shape (B, D)."""
        event_BLD = item_BLD + self.circumstances(codes, user_index_BL)
        last_B1 = (is_event_BL.sum(dim=1, keepdim=True) - 1).clamp_min(0)
        if self.tower.mask is not None:
            # One more step, to be guessed.
            last_B1 = last_B1 + 1
            event_BLD, timestamp_BL = functional.pad(event_BLD, (0, 0, 0, 1)), functional.pad(timestamp_BL, (0, 1))
            is_guessed_BL = torch.arange(event_BLD.shape[1]) == last_B1
            is_event_BL = functional.pad(is_event_BL, (0, 1)) | is_guessed_BL
            event_BLD = torch.where(is_guessed_BL[..., None], self.tower.mask, event_BLD)
        read_BLH = self.network(self.tower.to_network(event_BLD), is_event_BL, timestamp_BL)
        state_BD = _step(self.tower.recent(event_BLD), last_B1) + self.tower.from_network(_step(read_BLH, last_B1))
        if self.request is not None:
            scale_BD, shift_BD = self.request(requests, user_index_B).chunk(2, dim=-1)
            state_BD = state_BD * (1 + scale_BD) + shift_BD
        return self.tower._to_query(state_BD)


class CircumstancesGraph(nn.Module):
    """`Circumstances` on codes that are tensors already."""

    table_RD: Tensor

    def __init__(self, circumstances: Circumstances) -> None:
        super().__init__()
        self.circumstances = circumstances
        self.first_rows = [int(row) for row in circumstances._first_rows]
        # Large numbers, such as times, need double precision until they are centred.
        self.means, self.deviations = circumstances.mean_F.tolist(), circumstances.deviation_F.tolist()
        table_RD = circumstances.table.weight.detach().clone()
        table_RD[0] = 0  # what is unknown adds nothing
        self.register_buffer("table_RD", table_RD)
        for number, codes_U in enumerate(circumstances._codes_by_user):
            self.register_buffer(f"codes_{number}_U", torch.from_numpy(codes_U))

    def forward(self, codes: Sequence[Tensor], user_index: Tensor) -> Tensor:
        """Return one vector a moment.

        Args:
            codes: Of each kind, 0 where unknown: time, then behaviour and step of a session for events, then columns
                of words, then columns of numbers.
            user_index: Who it is.
        """
        num_users_columns = len(self.circumstances._codes_by_user)
        num_words = len(self.first_rows) - num_users_columns
        words = [*codes[:num_words]]
        words += [self.get_buffer(f"codes_{number}_U")[user_index] for number in range(num_users_columns)]
        rows = [torch.where(code > 0, code + first - 1, 0) for code, first in zip(words, self.first_rows, strict=True)]
        vectors = functional.embedding(torch.stack(rows, dim=-1), self.table_RD).sum(dim=-2)
        if self.circumstances.numbers is not None:
            values = torch.stack([*codes[num_words:]], dim=-1)
            mean_F, deviation_F = torch.tensor([self.means, self.deviations], dtype=torch.float64)
            scaled = (values - mean_F) / deviation_F
            known = torch.where(torch.isnan(scaled), 0.0, scaled)
            vectors = vectors + self.circumstances.numbers(known.float())
        return vectors


OPERATORS: dict[type[nn.RNNBase], tuple[str, tuple[int, ...], dict[str, int]]] = {
    nn.GRU: ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    nn.LSTM: ("LSTM", (0, 3, 1, 2), {}),
    nn.RNN: ("RNN", (0,), {}),
}
"""ONNX's operator for each cell, the place in torch's weights of each of its gates, and what makes it torch's."""


class RecurrentGraph(nn.Module):
    """A recurrent network as ONNX's own operators.

    torch's exporter would unroll an RNN, and fixes the length from the second GRU of a process on (torch 2.13:
    `torch.export._patches` changes a kernel that `OpOverload` has cached).
    """

    def __init__(self, network: Recurrent) -> None:
        super().__init__()
        cell = network.cell
        self.width = cell.hidden_size
        self.operator, gates, self.options = OPERATORS[type(cell)]
        # One direction; gates in the operator's order; the biases of input and state one after the other.
        self.inputs, self.hiddens, self.biases = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for layer in range(cell.num_layers):
            parts = {
                name: torch.cat([getattr(cell, f"{name}_l{layer}").chunk(len(gates))[gate] for gate in gates])
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            self.inputs.append(parts["weight_ih"][None])
            self.hiddens.append(parts["weight_hh"][None])
            self.biases.append(torch.cat([parts["bias_ih"], parts["bias_hh"]])[None])

    def forward(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        """Return a state for each step, shape (B, L, D)."""
        hidden_LBD = event_BLD.transpose(0, 1)
        length, batch, _ = hidden_LBD.shape
        attributes: dict[str, Any] = {"hidden_size": self.width} | self.options
        for weights in zip(self.inputs, self.hiddens, self.biases, strict=True):
            hidden_L1BD = torch.onnx.ops.symbolic(
                self.operator,
                (hidden_LBD, *weights),
                attributes,
                dtype=hidden_LBD.dtype,
                shape=(length, 1, batch, self.width),
                version=20,
            )
            hidden_LBD = hidden_L1BD.squeeze(1)
        return hidden_LBD.transpose(0, 1)


def is_on_grid(vectors_ID: Tensor) -> bool:
    """Tell whether vectors come from 8-bit numbers with a scale a row, so that nothing is lost by keeping them so."""
    steps_ID, scale_I = to_int8(vectors_ID)
    off_ID = (vectors_ID - steps_ID * scale_I[:, None]).abs()
    return bool((off_ID <= ON_GRID * scale_I[:, None]).all())


def event_codes(timestamp_BL: Tensor) -> list[Tensor]:
    """Return the codes of gap, hour, weekday and step of the session of every event, as `events_of`."""
    first_B1 = torch.full_like(timestamp_BL[:, :1], -1)
    gap_BL = torch.cat([first_B1, (timestamp_BL[:, 1:] - timestamp_BL[:, :-1]).clamp_min(0)], dim=1)
    steps_L = torch.arange(timestamp_BL.shape[1])
    begins_BL = torch.where(gap_BL > SESSION_GAP_SECONDS, steps_L, 0)
    is_earlier_LL = steps_L[:, None] >= steps_L
    session_BL = torch.where(is_earlier_LL, begins_BL[:, None, :], 0).amax(dim=2)
    return [*moment_codes(timestamp_BL, gap_BL), (steps_L - session_BL).clamp_max(SESSION_STEPS - 1) + 1]


def moment_codes(timestamp: Tensor, gap: Tensor) -> list[Tensor]:
    """Return the codes of gap, hour and weekday, 0 where unknown."""
    return [
        torch.where(gap >= 0, gap_buckets(gap) + 1, 0),
        torch.where(timestamp > 0, hours(timestamp) + 1, 0),
        torch.where(timestamp > 0, weekdays(timestamp) + 1, 0),
    ]


def _exportable(network: SequenceNetwork) -> nn.Module:
    return RecurrentGraph(network) if isinstance(network, Recurrent) else network


def _without(score_BI: Tensor, excluded_BS: Tensor) -> Tensor:
    """Return scores in which padding and excluded items are out of the question."""
    hidden_BS = functional.pad(excluded_BS, (0, 1), value=PADDING_INDEX)
    return score_BI.scatter(1, hidden_BS, torch.full_like(hidden_BS, -torch.inf, dtype=score_BI.dtype))


def _ratio(vectors_ID: Tensor, scaled_ID: Tensor) -> Tensor:
    """Return how much longer vectors are than scaled ones, shape (I,); 0 where there is nothing to scale."""
    length_I, scaled_I = vectors_ID.norm(dim=1), scaled_ID.norm(dim=1)
    return torch.where(scaled_I > 0, length_I / scaled_I, 0.0)


def _step(values_BLD: Tensor, step_B1: Tensor) -> Tensor:
    """Return the values at one step of each history, shape (B, D)."""
    return values_BLD.gather(1, step_B1[..., None].expand(-1, -1, values_BLD.shape[2])).squeeze(1)
