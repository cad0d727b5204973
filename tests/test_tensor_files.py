import torch
from safetensors.torch import load_file

from recloom.tensor_files import load_tensors, save_compact, to_int8


def test_8_bit_numbers_are_within_half_a_step_and_are_stored_the_same_again():
    matrix = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    matrix[7] = 0
    steps, scale = to_int8(matrix)
    again = steps * scale[:, None]
    assert ((again - matrix).abs() <= 0.5001 * scale[:, None]).all()
    assert torch.equal(to_int8(again)[0], steps)


def test_what_is_stored_small_is_read_back_with_its_rows_names_and_types(tmp_path):
    table = torch.zeros(100, 16)
    table[:3] = torch.arange(48).view(3, 16)
    tensors = {
        "table": table,
        "nothing": torch.zeros(40, 20),
        "narrow": torch.tensor([[0.1, 10.0], [0.2, 20.0]]),
        "bias": torch.randn(64),
        "seen": torch.ones(5, dtype=torch.bool),
    }
    for int8 in (False, True):
        save_compact(tensors, tmp_path / "small.safetensors", int8=int8)
        read = load_tensors(tmp_path / "small.safetensors")
        assert set(read) == set(tensors)
        for name in set(tensors) - {"table"}:
            assert torch.equal(read[name], tensors[name])
        assert torch.allclose(read["table"], table, atol=47 / 254 if int8 else 0)
        stored = load_file(tmp_path / "small.safetensors")
        assert stored["table"].shape == (3, 16)
        assert stored["nothing"].shape == (0, 20)
        assert stored["table"].dtype == (torch.int8 if int8 else torch.float32)
