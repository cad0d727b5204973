"""A fitted `weave` -> one of fewer dimensions and fewer units, as near to it as linear algebra gets.

Shapes: N items with interactions, D width of item vectors, d what is left of it, H width of the network, h what is
left of it, G gates of a cell.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from recloom.errors import ConfigError
from recloom.models.networks import Recurrent
from recloom.models.weave import Tower, Weave
from recloom.recommender import Recommender, new_model

KEPT_DIMENSIONS, KEPT_UNITS = 0.5, 0.5
"""Shares of the item vectors' width, and of a recurrent network's, that are left."""
MULTIPLE = 16
"""Widths are multiples of this, as processors like them."""
LINEAR_FUSIONS = ("id", "text", "sum", "init")
"""Fusions of which a turned and cut item vector is again one."""


def prune(recommender: Recommender) -> Weave:
    """Return a smaller model that has yet to be fine-tuned.

    Item vectors and all that is added to them are turned onto the principal directions of the item vectors as they
    are scored, items counting as often as they were taken, and cut to the first few. A recurrent network keeps the
    units whose weights out of them are largest; attention keeps its width, because its heads would have to be cut
    alike.

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
            weights |= _with_fewer_units(tower, weights, hidden)
    # What is smaller has less to be kept from learning by heart.
    smaller = replace(model.config, embedding_dim=width, hidden_dim=hidden, dropout=model.config.dropout / 2)
    pruned = new_model(recommender.dataset, replace(recommender.config, model=smaller), recommender.text)
    assert isinstance(pruned, Weave)
    rest = {name: values for name, values in model.state_dict().items() if not name.startswith("towers.")}
    pruned.load_state_dict(rest | {f"towers.0.{name}": values for name, values in weights.items()})
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
                 "to_query.bias"):  # fmt: skip
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


def _with_fewer_units(tower: Tower, weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return the weights in and around a recurrent network of which the strongest units are kept."""
    network = tower.network
    assert isinstance(network, Recurrent)
    cell = network.cell
    gates = len(weights["network.cell.weight_ih_l0"]) // cell.hidden_size
    into_network = weights["to_network.weight"].norm(dim=1) * weights["network.cell.weight_ih_l0"].norm(dim=0)
    kept = _strongest(into_network, width)
    fewer = {name: weights[name][kept] for name in ("to_network.weight", "to_network.bias")}
    for layer in range(cell.num_layers):
        place = "network.cell.{}_{}_l" + str(layer)
        is_last = layer == cell.num_layers - 1
        onwards = weights["from_network.weight" if is_last else f"network.cell.weight_ih_l{layer + 1}"]
        units = _strongest(onwards.norm(dim=0) * weights[place.format("weight", "hh")].norm(dim=0), width)
        for source, columns in (("ih", kept), ("hh", units)):
            weight, bias = place.format("weight", source), place.format("bias", source)
            rows = torch.cat([units + gate * cell.hidden_size for gate in range(gates)])
            fewer[weight] = weights[weight][rows][:, columns]
            fewer[bias] = weights[bias][rows]
        kept = units
    fewer["from_network.weight"] = weights["from_network.weight"][:, kept]
    return fewer


def _strongest(strength_H: Tensor, count: int) -> Tensor:
    """Return which units are the strongest, in their order, shape (h,)."""
    return torch.topk(strength_H, count).indices.sort().values
