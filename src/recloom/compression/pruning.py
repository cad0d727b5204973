"""A fitted `weave` -> one of fewer dimensions and fewer units, as near to it as linear algebra gets.

Shapes: N items with interactions, or states, D width of item vectors, d what is left of it, H width of the network,
h what is left of it.
"""

from dataclasses import replace

import torch
from scipy.linalg import qr
from torch import Tensor
from torch.nn import functional

from recloom.compression.onnx_export import SAMPLE, sample_histories
from recloom.errors import ConfigError
from recloom.fitting import new_model
from recloom.models.circumstances import events_of
from recloom.models.networks import Recurrent
from recloom.models.weave import Tower, Weave
from recloom.recommender import Recommender

KEPT_DIMENSIONS, KEPT_UNITS = 0.5, 0.5
"""Shares of the item vectors' width, and of a recurrent network's, that are left."""
RIDGE = 1e-5
"""Penalty on the regression of units on each other, a share of the number of states."""
MULTIPLE = 16
"""Widths are multiples of this, as processors like them."""
LINEAR_FUSIONS = ("id", "text", "sum", "init", "likeness")
"""Fusions of which a turned and cut item vector is again one."""


def prune(recommender: Recommender) -> Weave:
    """Return a smaller model that has yet to be fine-tuned.

    Item vectors and all that is added to them are turned onto the principal directions of the item vectors as they
    are scored, items counting as often as they were taken, and cut to the first few. A recurrent network keeps the
    units that tell most of what all do; attention keeps its width, because its heads would have to be cut alike.

    Raises:
        ConfigError: The model mixes id and text in a way that cannot be turned.
    """
    model = recommender.model
    assert isinstance(model, Weave)
    if model.config.fusion not in LINEAR_FUSIONS:
        raise ConfigError(
            f"a weave with model.fusion = {model.config.fusion!r} cannot be pruned, whose id and text parts cannot be"
            f" turned together; use --method distill or int8"
        )
    tower = model.eval()._towers[0]
    width = _fewer(model.config.embedding_dim, KEPT_DIMENSIONS)
    with torch.no_grad():
        turn_Dd = _principal_directions(tower, torch.from_numpy(recommender.counts_I), width)
        weights = _turned(tower, turn_Dd)
        hidden = model.config.hidden_dim
        if isinstance(tower.network, Recurrent):
            hidden = _fewer(hidden, KEPT_UNITS)
            weights |= _with_fewer_units(recommender, tower, weights, hidden)
    # What is smaller has less to be kept from learning by heart.
    smaller = replace(model.config, embedding_dim=width, hidden_dim=hidden, dropout=model.config.dropout / 2)
    pruned = new_model(recommender.dataset, replace(recommender.config, model=smaller), recommender.text)
    assert isinstance(pruned, Weave)
    rest = {name: values for name, values in model.state_dict().items() if not name.startswith("towers.")}
    rest |= {f"towers.0.{name}": values for name, values in weights.items()}
    if model._likeness is not None and pruned._likeness is not None:
        # Texts are compared along as many of their strongest directions as there is room for.
        fresh, before = pruned._likeness.state_dict(), model._likeness.state_dict()
        kept = {name: before[name] for name in fresh if fresh[name].shape == before[name].shape}
        rest |= {f"towers.1.{name}": values for name, values in (fresh | kept).items()}
    pruned.load_state_dict(rest)
    return pruned


def _fewer(width: int, share: float) -> int:
    return min(width, max(MULTIPLE, round(share * width / MULTIPLE) * MULTIPLE))


def _principal_directions(tower: Tower, counts_I: Tensor, width: int) -> Tensor:
    """Return the directions in which the scored item vectors are largest, orthonormal, shape (D, d)."""
    rows_N = counts_I.nonzero().squeeze(1)
    vectors_ND = functional.normalize(tower.items(rows_N), dim=1).double()
    moment_DD = vectors_ND.T @ (vectors_ND * counts_I[rows_N, None])
    return torch.linalg.eigh(moment_DD)[1].flip(1)[:, :width].float()


def _turned(tower: Tower, turn_Dd: Tensor) -> dict[str, Tensor]:
    """Return the weights of a tower whose vectors are turned and cut, by their names in it."""
    weights = {name: values.clone() for name, values in tower.state_dict().items()}
    back_dD = turn_Dd.T
    for name in ("items.ids.weight", "circumstances.table.weight", "to_network.weight", "mask",
                 "to_behavior.weight", "to_gap.weight"):  # fmt: skip
        if name in weights:
            weights[name] = weights[name] @ turn_Dd
    for name in ("items.from_text.weight", "circumstances.numbers.weight", "from_network.weight", "from_network.bias",
                 "to_query.bias", *(name for name in weights if name.endswith(".to_vector.weight"))):  # fmt: skip
        if name in weights:
            weights[name] = back_dD @ weights[name]
    weights["to_query.weight"] = back_dD @ weights["to_query.weight"] @ turn_Dd
    # A request scales each coordinate. Turned, that would mix them; what it does to each alone is kept.
    squared_Dd = turn_Dd.square()
    if "request.table.weight" in weights:
        scale_RD, shift_RD = weights["request.table.weight"].chunk(2, dim=1)
        weights["request.table.weight"] = torch.cat([scale_RD @ squared_Dd, shift_RD @ turn_Dd], dim=1)
    if "request.numbers.weight" in weights:
        scale_DF, shift_DF = weights["request.numbers.weight"].chunk(2, dim=0)
        weights["request.numbers.weight"] = torch.cat([squared_Dd.T @ scale_DF, back_dD @ shift_DF], dim=0)
    return weights


def _with_fewer_units(
    recommender: Recommender, tower: Tower, weights: dict[str, Tensor], width: int
) -> dict[str, Tensor]:
    """Return the weights in and around a recurrent network of which some units are kept.

    Those are kept that tell most of what all units say on histories of the dataset; what read the others reads their
    linear regression on the kept ones instead.
    """
    network = tower.network
    assert isinstance(network, Recurrent)
    cell = network.cell
    gates = len(weights["network.cell.weight_ih_l0"]) // cell.hidden_size
    into_network = weights["network.cell.weight_ih_l0"] @ weights["to_network.weight"]
    # The input goes through two linear maps. Their product has as many dimensions as item vectors at most, and is
    # parted anew; its constant becomes the cell's.
    left, strength, right = torch.linalg.svd(into_network, full_matrices=False)
    rank = min(width, len(strength))
    fewer = {
        "to_network.weight": functional.pad(right[:rank], (0, 0, 0, width - rank)),
        "to_network.bias": torch.zeros(width),
    }
    into_next = functional.pad(left[:, :rank] * strength[:rank], (0, width - rank))
    constant = weights["network.cell.weight_ih_l0"] @ weights["to_network.bias"]
    for layer in range(cell.num_layers):
        place = "network.cell.{}_{}_l" + str(layer)
        is_last = layer == cell.num_layers - 1
        onwards = weights["from_network.weight" if is_last else f"network.cell.weight_ih_l{layer + 1}"]
        states_NH = _states(recommender, tower, layer)
        kept, told_Hh = _most_telling(states_NH, onwards.norm(dim=0), width)
        rows = torch.cat([kept + gate * cell.hidden_size for gate in range(gates)])
        fewer[place.format("weight", "ih")] = into_next[rows]
        fewer[place.format("weight", "hh")] = weights[place.format("weight", "hh")][rows] @ told_Hh
        fewer[place.format("bias", "ih")] = (weights[place.format("bias", "ih")] + constant)[rows]
        fewer[place.format("bias", "hh")] = weights[place.format("bias", "hh")][rows]
        into_next, constant = onwards @ told_Hh, torch.zeros(len(onwards))
    fewer["from_network.weight"] = into_next
    return fewer


def _states(recommender: Recommender, tower: Tower, layer: int) -> Tensor:
    """Return the states of a layer after the events of a sample of histories, shape (N, H)."""
    network = tower.network
    assert isinstance(network, Recurrent)
    below = {name: value for name, value in network.state_dict().items() if int(name.rsplit("_l", 1)[1]) <= layer}
    up_to = Recurrent(tower.config.network, network.cell.hidden_size, layer + 1, dropout=0.0)
    up_to.load_state_dict(below)
    histories = sample_histories(recommender, SAMPLE)
    event_BLD, is_event_BL, timestamp_BL = tower._events(histories, events_of(histories))
    states_BLH: Tensor = up_to(tower.to_network(event_BLD), is_event_BL, timestamp_BL)
    return states_BLH[is_event_BL]


def _most_telling(states_NH: Tensor, weight_H: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose units from which the others can be told, each as much as it matters.

    Returns:
        Which, in their order, shape (h,), and the regression of all units on them, shape (H, h).
    """
    _, order = qr((states_NH * weight_H).double().numpy(), mode="r", pivoting=True)
    kept = torch.from_numpy(order[:count].copy()).long().sort().values
    kept_Nh = states_NH[:, kept].double()
    covariance_hh = kept_Nh.T @ kept_Nh + RIDGE * len(kept_Nh) * torch.eye(count).double()
    return kept, torch.linalg.solve(covariance_hh, kept_Nh.T @ states_NH.double()).T.float()
