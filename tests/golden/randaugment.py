"""Expected bytes of RandAugment's transformations and of cutout, for randaugment.rs.

    python tests/golden/randaugment.py [FOLDER]

Pillow computes them, called as in kekmodel/FixMatch-pytorch (dataset/randaugment.py, fixmatch_augment_pool),
which has the table of the FixMatch paper. Images are raw bytes in hexadecimal digits.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import store

random = np.random.default_rng(2001)
cases = []


def photo(height, width, channels):
    """Waves with noise, darker than light."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [90 + 70 * np.sin(x / (3 + c) + c) + 30 * np.cos(y / 4 - c) for c in range(channels)]
    image = np.stack(waves, axis=-1) + random.normal(0, 15, (height, width, channels))
    return np.clip(np.round(image), 3, 240).astype(np.uint8)


def fraction(most, least=0.0):
    return lambda level: float(level) * most / 10 + least


def whole(most, least=0):
    return lambda level: int(level * most / 10) + least


def affine(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix)


PLAIN = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Identity": Image.Image.copy}
OF_LEVEL = {
    "Brightness": (fraction(0.9, 0.05), lambda i, v: ImageEnhance.Brightness(i).enhance(v)),
    "Color": (fraction(0.9, 0.05), lambda i, v: ImageEnhance.Color(i).enhance(v)),
    "Contrast": (fraction(0.9, 0.05), lambda i, v: ImageEnhance.Contrast(i).enhance(v)),
    "Posterize": (whole(4, 4), ImageOps.posterize),
    "Sharpness": (fraction(0.9, 0.05), lambda i, v: ImageEnhance.Sharpness(i).enhance(v)),
    "Solarize": (whole(256), lambda i, v: ImageOps.solarize(i, 256 - v)),
}
EITHER_WAY = {
    "Rotate": (whole(30), lambda i, v: i.rotate(v)),
    "ShearX": (fraction(0.3), lambda i, v: affine(i, (1, v, 0, 0, 1, 0))),
    "ShearY": (fraction(0.3), lambda i, v: affine(i, (1, 0, 0, v, 1, 0))),
    "TranslateX": (fraction(0.3), lambda i, v: affine(i, (1, 0, int(v * i.size[0]), 0, 1, 0))),
    "TranslateY": (fraction(0.3), lambda i, v: affine(i, (1, 0, 0, 0, 1, int(v * i.size[1])))),
}


def cutout(image, side, y, x):
    """CutoutAbs with the centre given."""
    w, h = image.size
    x0, y0 = int(max(0, x - side / 2.)), int(max(0, y - side / 2.))
    xy = (x0, y0, int(min(w, x0 + side)), int(min(h, y0 + side)))
    image = image.copy()
    ImageDraw.Draw(image).rectangle(xy, 127 if image.mode == "L" else (127, 127, 127))
    return image


def case(image, output, **what):
    cases.append({**what, "image": image, "output": np.asarray(output).tobytes().hex()})


def main():
    images = [photo(28, 28, 1), photo(17, 22, 3), photo(2, 9, 3)]
    flat = np.full((20, 20, 1), 9, np.uint8)
    steep = np.repeat(np.uint8([[[0]], [[1]], [[255]]]), 150, axis=1)  # two values below a few others
    steep[2, 4:] = 1
    for number, pixels in enumerate([*images, flat, steep]):
        cases.append({"shape": pixels.shape, "pixels": pixels.tobytes().hex()})
        image = Image.fromarray(pixels.squeeze())
        for kind, transform in PLAIN.items():
            case(number, transform(image), kind=kind, level=1, negative=False)
        if number >= len(images):
            continue
        # All levels of the smallest image only, to keep the file small.
        levels = range(1, 10) if number == 2 else (1, 5, 9)
        for kind, (value, transform) in OF_LEVEL.items():
            for level in levels:
                case(number, transform(image, value(level)), kind=kind, level=level, negative=False)
        for kind, (value, transform) in EITHER_WAY.items():
            for level in levels:
                for sign in (1, -1):
                    output = transform(image, sign * value(level))
                    case(number, output, kind=kind, level=level, negative=sign < 0)
        for y, x in [(0.4, 0.7), (1.9, 8.2), (9.5, 3.0)]:
            if y < pixels.shape[0]:
                case(number, cutout(image, 6, y, x), kind="cutout", side=6, y=y, x=x)
    store.write("randaugment.json", cases)


if __name__ == "__main__":
    main()
