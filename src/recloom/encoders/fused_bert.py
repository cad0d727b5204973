"""BERT with its small steps fused into its large ones: what transformers computes, in less time on a CPU.

Shapes: B texts, L tokens in each, D width, H heads, W width of a head.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def can_fuse(model: Any) -> bool:
    """Whether `FusedBert` computes what this model does, on this machine."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        # Operations of torch's own compiler, tried with torch 2.13; another version may have others.
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and type(model).__name__ == "BertModel"
        and model.config.hidden_act == "gelu"
        and not model.config.is_decoder
        and getattr(model.config, "position_embedding_type", "absolute") == "absolute"
    )


class FusedBert(nn.Module):
    """A transformers `BertModel` for reading texts of one length on the CPU.

    Queries, keys and values come from one product, and oneDNN adds biases and applies GELU to what it has just
    multiplied, with weights it laid out beforehand. It differs from transformers by rounding only.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.layers = nn.ModuleList(
            _FusedLayer(layer, model.config.num_attention_heads) for layer in model.encoder.layer
        )

    def forward(self, input_ids: Tensor) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        hidden_BLD = self.embeddings(input_ids=input_ids)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD)
        return BaseModelOutput(last_hidden_state=hidden_BLD)


class _FusedLayer(nn.Module):
    def __init__(self, layer: Any, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        attention = layer.attention.self
        self.query_key_value = _PackedLinear(attention.query, attention.key, attention.value)
        self.attention_output = _PackedLinear(layer.attention.output.dense)
        self.attention_norm = layer.attention.output.LayerNorm
        self.widen = _PackedLinear(layer.intermediate.dense, activation="gelu")
        self.narrow = _PackedLinear(layer.output.dense)
        self.output_norm = layer.output.LayerNorm

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        batch, length, width = hidden_BLD.shape
        fused_BLD3 = self.query_key_value(hidden_BLD)
        query_BHLW, key_BHLW, value_BHLW = fused_BLD3.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        read_BHLW = functional.scaled_dot_product_attention(query_BHLW, key_BHLW, value_BHLW)
        read_BLD = read_BHLW.transpose(1, 2).reshape(batch, length, width)
        hidden_BLD = self.attention_norm(self.attention_output(read_BLD).add_(hidden_BLD))
        return cast("Tensor", self.output_norm(self.narrow(self.widen(hidden_BLD)).add_(hidden_BLD)))


class _PackedLinear(nn.Module):
    """Linear layers of one input, side by side, in oneDNN's own layout.

    The operations are torch's own, made for torch.compile, which would want a compiler on the machine.
    """

    def __init__(self, *layers: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.bias = torch.cat([layer.bias.detach() for layer in layers])
        self.packed = torch.ops.mkldnn._reorder_linear_weight(torch.cat([layer.weight.detach() for layer in layers]))

    def forward(self, input_BLD: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(input_BLD, self.packed, self.bias, self.activation, [], "none")
