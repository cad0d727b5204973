"""Pictures -> vectors, by a pretrained vision model.

Shapes: N pictures, C channels, S pixels along a side, E width of a vector.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from recloom.encoders.efficientnet import WEIGHTS_SHA256, WIDTH, efficientnet_weights, load_efficientnet
from recloom.encoders.hub import HUB_NAME, hub_folder
from recloom.encoders.pictures import PictureError, read_picture
from recloom.encoders.pipeline import sha256_of, weight_files
from recloom.encoders.pooled_model import quiet_transformers
from recloom.errors import ArtifactError, ConfigError, EncodingError, MissingExtraError

EFFICIENTNET = "efficientnet"
IMAGE_ENCODER_NAMES = (EFFICIENTNET,)
"""Image encoders that need no folder."""
ONNX_MODEL, PREPROCESSOR = "model.onnx", "preprocessor_config.json"

See = Callable[[np.ndarray], np.ndarray]
"""Pixels as the model wants them, float32 of shape (1, C, S, S) -> its vector, shape (1, E); threads may call it."""


@dataclass(frozen=True)
class Preparation:
    """What a vision model wants pixels to be like."""

    size: int = 224
    """Pixels along a side."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """What is taken off red, green and blue, each between 0 and 1; unless told otherwise as ImageNet has it."""
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What they are divided by then."""

    @classmethod
    def read(cls, folder: Path) -> "Preparation":
        """Read `preprocessor_config.json`, as transformers writes it; what it does not say is as for ImageNet.

        Raises:
            ArtifactError: It is there and cannot be read.
        """
        path = folder / PREPROCESSOR
        if not path.exists():
            return cls()
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            wanted = said.get("crop_size") if said.get("do_center_crop") else None
            size = _side(wanted or said.get("size") or cls.size)
            if not said.get("do_normalize", True):
                return cls(size, (0.0,) * 3, (1.0,) * 3)
            mean = tuple(map(float, said.get("image_mean") or cls.mean))
            deviation = tuple(map(float, said.get("image_std") or cls.deviation))
        except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
            raise ArtifactError(f"{path} cannot be read ({error!r}); copy the encoder folder again") from None
        if not 1 <= size <= 4096 or len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
            raise ArtifactError(f"{path} asks for {size} pixels, mean {mean}, deviation {deviation}; wanted RGB")
        return cls(size, mean, deviation)

    def pixels(self, path: Path) -> np.ndarray:
        """Read a picture file; shape (1, C, S, S).

        Raises:
            PictureError: It cannot be used.
        """
        pixels_SSC = read_picture(path, self.size).astype(np.float32) / 255
        pixels_SSC = (pixels_SSC - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.ascontiguousarray(pixels_SSC.transpose(2, 0, 1)[None])


class ImageEncoder:
    """Read pictures with a pretrained vision model, one at a time on each thread.

    So a vector does not depend on what other pictures there are. The model is loaded when the first picture is read, so
    that pictures which are all cached cost neither time nor memory for it.

    Args:
        name: How messages call it.
        fingerprint: Everything that changes the vectors.
        preparation: What the model wants pixels to be like.
        load: Loads the model.
        embedding_dim: Width E of the vectors. None: the model is asked.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        preparation: Preparation,
        load: Callable[[], See],
        embedding_dim: int | None = None,
    ) -> None:
        self.name = name
        self.fingerprint = f"{fingerprint} {preparation}"
        self._preparation, self._load, self._known_dim = preparation, load, embedding_dim
        self._lock = Lock()

    @property
    def embedding_dim(self) -> int:
        """Width E of the vectors."""
        if self._known_dim is None:
            size = self._preparation.size
            with torch.inference_mode():
                self._known_dim = int(self._see(np.zeros((1, 3, size, size), dtype=np.float32)).shape[1])
        return self._known_dim

    def encode(self, paths: Sequence[Path]) -> list[np.ndarray | PictureError]:
        """Return the vector of each picture, float32 of shape (E,), or what is wrong with it.

        Raises:
            EncodingError: The model gave something else than finite numbers.
        """
        # Loading, the number of threads, and which warnings are shown, are not to be shared.
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on what is odd about a file
            see, threads = self._see, torch.get_num_threads()

            def read(path: Path) -> np.ndarray | PictureError:
                try:
                    pixels = self._preparation.pixels(path)
                except PictureError as error:
                    return error
                with torch.inference_mode():
                    vector_E = np.asarray(see(pixels)[0], dtype=np.float32)
                if not np.isfinite(vector_E).all():
                    raise EncodingError(f"the image encoder {self.name} gave no finite numbers for {path}")
                return vector_E

            if threads == 1 or len(paths) <= 1:
                return [read(path) for path in paths]
            try:
                with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                    return list(pool.map(read, paths))
            finally:
                torch.set_num_threads(threads)  # or threads started later would inherit the workers' setting

    def release(self) -> None:
        """Let go of the model's weights; they are loaded again when a picture is to be read."""
        self.__dict__.pop("_see", None)

    @cached_property
    def _see(self) -> See:
        return self._load()


def load_image_encoder(name: str) -> ImageEncoder:
    """Load an image encoder by name.

    Args:
        name: `efficientnet` (EfficientNet-Lite0, from the package of the extra `images`), a folder, or a name on the
            hub. A folder holds what transformers' `save_pretrained` wrote of a vision model (CLIP, SigLIP, ViT, DINOv2,
            ConvNeXt, ResNet, ...), or `model.onnx`, from pixels (1, 3, S, S) to one vector; each with
            `preprocessor_config.json`, else pixels are prepared as for ImageNet.

    Raises:
        ConfigError: Nothing has this name.
        MissingExtraError: What the encoder needs is not installed.
        ArtifactError: Its files are damaged or incomplete.
    """
    if name == EFFICIENTNET:
        path = efficientnet_weights()
        preparation = Preparation(224, (0.498,) * 3, (0.502,) * 3)
        fingerprint = f"efficientnet-lite0 model={WEIGHTS_SHA256[:32]}"
        return ImageEncoder(name, fingerprint, preparation, lambda: _efficientnet(path), WIDTH)
    if Path(name).is_dir():
        return _of_folder(name, Path(name))
    if HUB_NAME.fullmatch(name):
        return _of_folder(name, hub_folder(name))
    raise ConfigError(
        f"unknown image encoder {name!r}; there are {', '.join(IMAGE_ENCODER_NAMES)}, none, a folder with a vision"
        " model of transformers or with model.onnx, or a hub name such as owner/model"
    )


def _of_folder(name: str, folder: Path) -> ImageEncoder:
    onnx = folder / ONNX_MODEL
    # A path counts by its last part, so that the folder may move.
    called = Path(name).resolve().name
    if onnx.exists():
        return ImageEncoder(
            name, f"{called} onnx={sha256_of(onnx)[:32]}", Preparation.read(folder), lambda: _onnx(onnx)
        )
    config = folder / "config.json"
    if not config.exists():
        raise ArtifactError(
            f"the image encoder folder {folder} has neither {ONNX_MODEL} nor config.json; pass the folder that"
            " save_pretrained wrote"
        )
    digest = sha256("".join(map(sha256_of, [config, *weight_files(folder)])).encode()).hexdigest()[:32]
    return ImageEncoder(name, f"{called} model={digest}", Preparation.read(folder), lambda: _transformers(folder))


def _efficientnet(path: Path) -> See:
    # With channels side by side in memory it takes three quarters of the time.
    layout = torch.channels_last
    model = load_efficientnet(path).to(memory_format=layout)  # type: ignore[call-overload]
    return lambda pixels: model(torch.from_numpy(pixels).contiguous(memory_format=layout)).numpy()


def _onnx(path: Path) -> See:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnx", f"the image encoder {path}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # pictures are read side by side, each on one thread
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever a damaged file leads to
        raise ArtifactError(f"{path} cannot be loaded ({error}); export it again") from None
    inputs = session.get_inputs()

    def see(pixels: np.ndarray) -> np.ndarray:
        try:
            vector = np.asarray(session.run(None, {inputs[0].name: pixels})[0])
        except Exception as error:
            raise ArtifactError(
                f"{path} cannot read pixels of shape {pixels.shape} ({error}); export a model of one input, and name"
                f" its size in {PREPROCESSOR}"
            ) from None
        return vector.reshape(1, -1)

    return see


def _transformers(folder: Path) -> See:
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # transformers raises whatever a damaged file leads to
        raise ArtifactError(f"the model in the image encoder folder {folder} cannot be loaded ({error})") from None
    missing = sorted(report["missing_keys"])
    has_pooler = not any("pooler" in name for name in missing)
    if rest := [name for name in missing if "pooler" not in name]:
        raise ArtifactError(
            f"the weights in the image encoder folder {folder} lack {len(rest)} tensors of the model, such as"
            f" {rest[0]}; save the whole model there"
        )
    look = getattr(model.eval(), "get_image_features", None) or model

    def see(pixels: np.ndarray) -> np.ndarray:
        try:
            seen: Any = look(pixel_values=torch.from_numpy(pixels))
        except TypeError:
            raise ArtifactError(
                f"the model in {folder} reads no pictures; choose a vision model such as CLIP, ViT or ConvNeXt"
            ) from None
        if isinstance(seen, torch.Tensor):
            return seen.flatten(1).numpy()
        pooled = getattr(seen, "pooler_output", None)
        if pooled is not None and has_pooler:
            return pooled.flatten(1).numpy()
        # Without a pooler: the first token, or the mean over places of a model that keeps them in a grid.
        hidden = seen.last_hidden_state
        return (hidden[:, 0] if hidden.dim() == 3 else hidden.mean(dim=(2, 3))).numpy()

    return see


def _side(size: Any) -> int:
    if isinstance(size, dict):
        known = [size[key] for key in ("height", "shortest_edge", "longest_edge") if key in size]
        return int(known[0])
    return int(size)
