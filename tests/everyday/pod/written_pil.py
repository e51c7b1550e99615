"""Pillow, in the order of what its handbook shows: open and save, thumbnails, cut and paste, bands, filters,
drawing, sequences."""

import hashlib
import io
import os
import tempfile

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps, ImageSequence, ImageStat


def _scene():
    red, green = Image.linear_gradient("L"), Image.radial_gradient("L")
    return Image.merge("RGB", (red, green, red.rotate(90)))


def _told(image):
    return {"size": image.size, "mode": image.mode, "digest": hashlib.sha256(image.tobytes()).hexdigest()}


def open_and_save():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "scene.png")
        _scene().save(path)
        with Image.open(path) as image:
            print(image.format, image.size, image.mode)
            return _told(image)


def convert_to_jpeg_beside_the_program():
    _scene().save("scene.jpg", quality=80)
    try:
        with Image.open("scene.jpg") as image:
            return _told(image)
    finally:
        os.unlink("scene.jpg")


def thumbnail():
    image = _scene()
    image.thumbnail((64, 48))
    return _told(image)


def cut_turn_and_paste():
    image = _scene()
    box = (50, 50, 200, 200)
    image.paste(image.crop(box).transpose(Image.Transpose.ROTATE_180), box)
    return _told(image)


def split_bands_and_mask():
    image = _scene()
    bands = list(image.split())
    mask = bands[0].point(lambda level: level < 100 and 255)
    bands[1].paste(bands[1].point(lambda level: level * 0.7), None, mask)
    return _told(Image.merge(image.mode, bands))


def enhance_and_filter():
    image = ImageEnhance.Contrast(_scene()).enhance(1.3).filter(ImageFilter.DETAIL).filter(ImageFilter.GaussianBlur(2))
    stat = ImageStat.Stat(image)
    return {"mean": stat.mean, "told": _told(image), "histogram": image.histogram()[:8]}


def draw_text_in_the_default_font():
    image = Image.new("RGBA", (200, 60), "white")
    draw = ImageDraw.Draw(image)
    draw.line((0, 0) + image.size, fill=128)
    draw.text((10, 10), "Hello, Wörld", font=ImageFont.load_default(24), fill="navy")
    return {"box": draw.textbbox((10, 10), "Hello", font=ImageFont.load_default(24)), "told": _told(image)}


def animated_gif():
    frames, kept = [_scene().resize((32, 32)).rotate(30 * turn) for turn in range(5)], io.BytesIO()
    frames[0].save(kept, "GIF", save_all=True, append_images=frames[1:], duration=40, loop=0)
    with Image.open(kept) as image:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(image)], image.n_frames


def formats_there_and_back():
    sizes = {}
    for kind in ("PNG", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "PDF", "ICO"):
        kept = io.BytesIO()
        _scene().save(kept, kind)
        if kind != "PDF":
            sizes[kind] = Image.open(kept).size
    return sizes


def operations_on_images():
    image = _scene()
    fitted = ImageOps.autocontrast(ImageOps.grayscale(ImageOps.fit(image, (80, 80))))
    return _told(ImageChops.difference(fitted, ImageOps.mirror(fitted)))
