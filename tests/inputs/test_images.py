"""Image reading: limits, conversions, and names that try to leave the folder."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import numpy
import pytest
from PIL import Image

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import image_size, open_image, resolve_inside


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and holds no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 4) + b"IDAT"


def noise(height: int = 16, width: int = 16) -> Image.Image:
    """Returns a picture that compresses badly, so that cutting it off hurts."""
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def three_lines(error: BadInputError) -> str:
    """Returns an error's message after checking its length."""
    assert len(str(error).split("\n")) <= 3
    return str(error)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jpg", b"", "empty"),
        ("page.jpg", b"<!DOCTYPE html><html>404</html>", "HTML page"),
        ("drawing.png", b"<svg xmlns='x'/>", "SVG"),
        ("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        ("noise.png", bytes(range(256)), "not an image"),
        ("bomb.png", png_header(20_000, 20_000), "too many pixels"),
        ("large.png", png_header(10_000, 10_000), "too many pixels"),
        ("cut_header.png", png_header(10, 10)[:20], "header is damaged|not an image"),
    ],
)
def test_files_that_are_no_picture_are_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (open_image, image_size):
        with pytest.raises(BadInputError, match=expected) as caught:
            read(path, "annotation.json: record 7")
        message = three_lines(caught.value)
        assert "annotation.json: record 7" in message
        assert name in message


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_picture_is_refused_when_decoded(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise(64, 64).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadInputError, match=r"cut|damaged|not an image"):
        open_image(path)


def test_a_directory_a_pipe_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="a directory"):
        open_image(tmp_path)
    with pytest.raises(BadInputError, match="no regular file"):
        open_image(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="missing"):
        open_image(tmp_path / "nothing.jpg")


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = numpy.array([[0, 257, 32896, 65535]], dtype=numpy.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    pixels = numpy.asarray(open_image(tmp_path / "grey.png"))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_colour_modes_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    red.convert("P").save(tmp_path / "palette.png")
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (2, 2), 200).save(tmp_path / "grey.png")
    assert numpy.allclose(numpy.asarray(open_image(tmp_path / "cmyk.jpg"))[0, 0], [255, 0, 0], atol=3)
    assert numpy.asarray(open_image(tmp_path / "palette.png"))[0, 0].tolist() == [255, 0, 0]
    assert numpy.asarray(open_image(tmp_path / "clear.png"))[0, 0].tolist() == [255, 0, 0]
    assert numpy.asarray(open_image(tmp_path / "grey.png"))[0, 0].tolist() == [200, 200, 200]


def test_orientation_is_applied_and_the_first_frame_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(4, 8).save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").size == (4, 8)
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert numpy.asarray(open_image(tmp_path / "moving.gif"))[0, 0].tolist() == [255, 0, 0]


def test_thirty_two_bit_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(numpy.zeros((2, 2), dtype=numpy.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(BadInputError, match="32 bits"):
        open_image(tmp_path / "float.tiff")


def test_arrays_are_pictures_or_refused() -> None:
    assert open_image(numpy.zeros((3, 5), numpy.uint8)).size == (5, 3)
    for wrong in (numpy.zeros((3, 5)), numpy.zeros((3, 5, 4), numpy.uint8), numpy.zeros((0, 5), numpy.uint8)):
        with pytest.raises(BadInputError, match="no picture"):
            open_image(wrong)


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "../secret.png", "a/../../secret.png", "/etc/passwd", "C:secret.png", "C:\\secret.png"),
        *("..\\secret.png", "http://example.org/a.png", "file:secret.png", "a\0.png", "data:image/png;base64,"),
        *("e" * 256, "\u00e9" * 200),
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="leads out") as caught:
        resolve_inside(tmp_path, name, "annotation.json:3")
    assert "annotation.json:3" in three_lines(caught.value)


def test_links_may_stay_inside_but_not_leave(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    noise().save(tmp_path / "secret.png")
    noise().save(images / "real.png")
    (images / "inside.png").symlink_to(images / "real.png")
    (images / "outside.png").symlink_to(tmp_path / "secret.png")
    (images / "sub" / "up").symlink_to(tmp_path)
    assert resolve_inside(images, "inside.png", "here") == images / "inside.png"
    assert resolve_inside(images, "task:1+x.png", "here") == images / "task:1+x.png"
    for name in ("outside.png", "sub/up/secret.png"):
        with pytest.raises(BadInputError, match="leads out"):
            resolve_inside(images, name, "here")
    (tmp_path / "link").symlink_to(images)
    assert resolve_inside(tmp_path / "link", "real.png", "here").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_cut_and_every_flipped_byte_is_a_picture_or_an_error_of_ours(tmp_path: Path) -> None:
    """Pillow raises struct.error for a bad EXIF block, SyntaxError for a bad chunk, zlib.error, and more."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    path = tmp_path / "picture"
    for form, options in (("PNG", {"exif": exif}), ("JPEG", {"exif": exif}), ("GIF", {}), ("TIFF", {"exif": exif})):
        noise(9, 7).save(path, format=form, **options)
        content = path.read_bytes()
        for position in range(0, len(content), 3):
            for changed in (content[:position], content[:position] + b"\xff" * 4 + content[position + 4 :]):
                path.write_bytes(changed)
                with contextlib.suppress(BadInputError):
                    assert open_image(path, "record 7").mode == "RGB"


def test_what_pillow_raises_names_file_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(9, 7).save(tmp_path / "a.png")
    for error in (struct.error("unpack"), zlib.error("bad"), SyntaxError("chunk"), AttributeError("x" * 1_000)):

        def fail(image: Image.Image, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("lightning_m2pt.inputs.images.ImageOps.exif_transpose", fail)
        with pytest.raises(
            BadInputError, match=rf"record 7: .*a\.png: the image is damaged .*{type(error).__name__}"
        ) as caught:
            open_image(tmp_path / "a.png", "record 7")
        assert len(caught.value.message()) < 400 + len(str(tmp_path))
