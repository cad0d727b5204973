"""Pictures of every odd kind: what can be read is read right, the rest has one reason each."""

import os
import struct
import zlib

import numpy as np
import pytest

from recloom.encoders import pictures
from recloom.encoders.pictures import PictureError, picture_path, read_picture

Image = pytest.importorskip("PIL.Image", reason="the extra images is not installed")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def middle(path):
    """Return the colour in the middle of a picture, coarsely: JPEG moves it a little."""
    return tuple(int(round(value / 51) * 51) for value in read_picture(path, 16)[8, 8])


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff"])
def test_pictures_of_the_usual_formats_are_read(tmp_path, suffix):
    path = tmp_path / f"red.{suffix}"
    Image.new("RGB", (30, 20), RED).save(path)
    assert read_picture(path, 16).shape == (16, 16, 3)
    assert middle(path) == RED


def test_a_format_is_known_by_what_is_in_the_file_and_not_by_its_name(tmp_path):
    Image.new("RGB", (8, 8), BLUE).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "named.jpg")
    assert middle(tmp_path / "named.jpg") == BLUE


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    for suffix in ("gif", "webp", "png", "tiff"):
        frames[0].save(tmp_path / f"moves.{suffix}", save_all=True, append_images=frames[1:])
        assert middle(tmp_path / f"moves.{suffix}") == RED


def test_cmyk_grey_and_sixteen_bits_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert middle(tmp_path / "cmyk.jpg") == RED
    Image.new("L", (8, 8), 102).save(tmp_path / "grey.png")
    assert middle(tmp_path / "grey.png") == (102, 102, 102)
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert middle(tmp_path / "bits.png") == WHITE
    Image.fromarray(np.full((8, 8), 102 * 257, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert middle(tmp_path / "deep.png") == (102, 102, 102)
    Image.fromarray(np.full((8, 8), 0.4, dtype=np.float32)).save(tmp_path / "float.tiff")
    assert middle(tmp_path / "float.tiff") == (102, 102, 102)


def test_what_is_transparent_is_white(tmp_path):
    Image.new("RGBA", (8, 8), (*RED, 0)).save(tmp_path / "clear.png")
    assert middle(tmp_path / "clear.png") == WHITE
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "clear-grey.png")
    assert middle(tmp_path / "clear-grey.png") == WHITE
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*RED, *GREEN])
    palette.save(tmp_path / "palette.png")
    assert middle(tmp_path / "palette.png") == RED
    palette.save(tmp_path / "clear.gif", transparency=0)
    assert middle(tmp_path / "clear.gif") == WHITE


def test_the_square_in_the_middle_is_read(tmp_path):
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, :20], pixels[:, 20:40], pixels[:, 40:] = RED, GREEN, BLUE
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_picture(tmp_path / "wide.png", 8) == GREEN).all()


def test_a_strip_a_pixel_high_does_not_grow_to_gigabytes(tmp_path):
    Image.new("RGB", (60_000, 1), RED).save(tmp_path / "strip.png")
    assert middle(tmp_path / "strip.png") == RED


def test_a_photograph_stands_upright(tmp_path):
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    pixels[:10], pixels[10:] = RED, BLUE
    notes = Image.Exif()
    notes[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=notes)
    assert tuple(read_picture(tmp_path / "turned.png", 4)[0, 0]) == BLUE


def bomb(path):
    """Write a PNG of some hundred bytes that says it is 30,000 pixels wide and high."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def large(path):
    Image.new("L", (9_000, 8_000)).save(path)  # 72 million pixels, below where Pillow itself refuses


def cut_off(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:2_000])


def cut_off_photograph(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:1_000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, pictures.NO_FILE),
        (lambda path: path.mkdir(), pictures.NO_FILE),
        (lambda path: os.mkfifo(path), pictures.NO_FILE),
        (lambda path: path.write_bytes(b""), pictures.NO_PICTURE),
        (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), pictures.NO_PICTURE),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), pictures.NO_PICTURE),
        (cut_off, pictures.DAMAGED),
        (cut_off_photograph, pictures.DAMAGED),
        (bomb, pictures.TOO_LARGE),
        (large, pictures.TOO_LARGE),
    ],
)
def test_what_is_no_picture_has_a_reason(tmp_path, write, reason):
    write(tmp_path / "odd.jpg")
    with pytest.raises(PictureError) as found:
        read_picture(tmp_path / "odd.jpg", 16)
    assert str(found.value) == reason


def test_a_file_of_too_many_bytes_is_not_opened(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20), RED).save(tmp_path / "red.png")
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    with pytest.raises(PictureError, match="more than"):
        read_picture(tmp_path / "red.png", 16)


def test_names_of_pictures_are_paths_and_file_addresses(tmp_path):
    assert picture_path("a/b.jpg") == picture_path("file:a/b.jpg").relative_to(".")
    spaced = tmp_path / "two words é.jpg"
    assert picture_path(spaced.as_uri()) == spaced
    for address in ("https://x.org/a.jpg", "HTTP://x.org/a", "//x.org/a.jpg", "data:image/png;base64,AAAA"):
        with pytest.raises(PictureError, match="a web address"):
            picture_path(address)
    with pytest.raises(PictureError, match="no such file"):
        read_picture(picture_path("a\0b.jpg"), 8)
    with pytest.raises(PictureError, match="no such file"):
        read_picture(picture_path("x" * 5_000), 8)
