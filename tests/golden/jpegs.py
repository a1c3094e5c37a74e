"""JPEG files of every kind, and libjpeg-turbo's result for each, for tests/data/decode.rs.

    pip install pillow==13.0.0 numpy zstandard && python tests/golden/jpegs.py [FOLDER]

writes jpegs/*.jpg and jpegs.json into FOLDER (default: beside this script). The same versions give
the same bytes.

The picture is a mosaic of the product photographs in pipelines/smoke/data, three per tile, one
per colour. Pillow, which uses libjpeg-turbo, decodes each file and turns it upright; jpegs.json has
the CRC-32 of the RGB bytes, and of the picture at 1/2, 1/4 and 1/8. CMYK goes to RGB by the formula of TensorFlow's decode_jpeg.
"""

import json
import pathlib
import sys
import zlib

import numpy as np
import zstandard
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
HEIGHT, WIDTH = 133, 185


def mosaic():
    path = here.parent.parent / "pipelines/smoke/data/train-images-idx3-ubyte.zst"
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())[16:]
    images = np.frombuffer(data, np.uint8).reshape(-1, 28, 28)
    rows, columns = HEIGHT // 28 + 1, WIDTH // 28 + 1
    tiles = images[: rows * columns * 3].reshape(rows, columns, 3, 28, 28)
    picture = tiles.transpose(0, 3, 1, 4, 2).reshape(rows * 28, columns * 28, 3)
    return Image.fromarray(np.ascontiguousarray(picture[:HEIGHT, :WIDTH]))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


rgb = mosaic()
jpegs = {
    "444": (rgb, {"subsampling": "4:4:4"}),
    "422": (rgb, {"subsampling": "4:2:2"}),
    "420": (rgb, {"subsampling": "4:2:0"}),
    "420-restarts": (rgb, {"subsampling": "4:2:0", "restart_marker_rows": 1}),
    # The longest codes and values.
    "444-best": (rgb, {"subsampling": "4:4:4", "quality": 100, "optimize": True}),
    "420-progressive": (rgb, {"subsampling": "4:2:0", "progressive": True}),
    "444-progressive": (rgb, {"subsampling": "4:4:4", "progressive": True}),
    "grey": (rgb.convert("L"), {}),
    "cmyk": (rgb.convert("CMYK"), {}),
    **{f"exif{o}": (rgb, {"exif": exif(o)}) for o in range(1, 9)},
}
(out / "jpegs").mkdir(exist_ok=True)
records = []
for name, (picture, options) in jpegs.items():
    path = out / "jpegs" / f"{name}.jpg"
    picture.save(path, **{"quality": 80, **options})
    decoded = ImageOps.exif_transpose(Image.open(path))
    if decoded.mode == "CMYK":
        # Pillow has already inverted Adobe's inverted values.
        light = 255 - np.asarray(decoded, np.uint32)
        pixels = (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    else:
        pixels = np.asarray(decoded.convert("RGB"))
    height, width, _ = pixels.shape
    crc = zlib.crc32(pixels.tobytes())
    record = {"name": name, "height": height, "width": width, "crc32": crc}
    if picture.mode != "CMYK" and not name.startswith("exif"):
        # libjpeg-turbo scales while it decodes.
        record["scaled"] = []
        for divisor in [2, 4, 8]:
            scaled = Image.open(path)
            scaled.draft(None, (WIDTH // divisor, HEIGHT // divisor))
            record["scaled"].append(zlib.crc32(scaled.convert("RGB").tobytes()))
    records.append(record)
(out / "jpegs.json").write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
