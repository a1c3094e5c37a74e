"""Expected results of the image operations, for images.rs.

    python tests/golden/images.py [FOLDER]

TensorFlow computes resizing, cropping, flipping, colour and standardization, with its version-1 ops
if version 2 changed the meaning; NumPy computes rotations (np.rot90) and value ranges (float64).
The pipelines around the ops are written here from the formulas of the S4L preprocessing.
"""

import math

import numpy as np
import tensorflow as tf

import store

v1 = tf.compat.v1.image
generator = np.random.default_rng(1905)
cases = []


def photo(height, width, channels=3):
    """A gradient with edges and noise, and both extremes: harder on an operation than a photograph."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [127 + 90 * np.sin(x / (2 + c) + c) + 40 * np.cos(y / 3 - c) for c in range(channels)]
    image = np.stack(waves, axis=-1) + generator.normal(0, 30, (height, width, channels))
    image[0, 0] = 0
    image[-1, -1] = 255
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def case(kind, image, output, level=1.0, **parameters):
    """`level` is one grey level of 255 in the units of the output."""
    output = np.asarray(output, np.float64)
    decimals = 4 - math.floor(math.log10(level))
    cases.append({
        "kind": kind,
        **parameters,
        "input": {"shape": image.shape, "data": image.flatten().tolist()},
        "level": level,
        "output": {"shape": output.shape, "data": np.round(output, decimals).flatten().tolist()},
    })


def pipe(text, image, output, level=1.0, mode="eval"):
    case("pipe", image, output, level, pipe=text, mode=mode)


def f32(image):
    return tf.constant(image, tf.float32)


def legacy(image, height, width):
    return v1.resize_bilinear(f32(image)[None], [height, width])[0].numpy()


def small(image, side):
    """resize_small: the size in float32 with ties to even, then boxes."""
    h, w = np.float32(image.shape[0]), np.float32(image.shape[1])
    ratio = np.float32(side) / min(h, w)
    size = [int(np.round(h * ratio)), int(np.round(w * ratio))]
    return v1.resize_area(f32(image)[None], size)[0].numpy()


def central(image, height, width):
    h, w = image.shape[:2]
    box = ((h - height) // 2, (w - width) // 2, height, width)
    return tf.image.crop_to_bounding_box(image, *box).numpy()


def multi(image, height, width):
    bottom, right = image.shape[0] - height, image.shape[1] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    crops = [tf.image.crop_to_bounding_box(image, y, x, height, width) for y, x in corners]
    return np.stack([central(image, height, width), *crops])


def turns(image):
    return np.stack([np.rot90(image, k) for k in range(4)])


def scaled(image, low, high):
    return low + np.asarray(image, np.float64) / 255 * (high - low)


def resizing():
    shapes = [((13, 17, 3), (8, 8)), ((9, 5, 3), (12, 14)), ((28, 28, 1), (20, 11)),
              ((6, 7, 1), (6, 7)), ((1, 1, 3), (3, 2)), ((11, 1, 1), (1, 4)), ((2, 19, 3), (7, 3))]
    for shape, (h, w) in shapes:
        image = photo(*shape)
        pipe(f"resize({h},{w})", image, legacy(image, h, w))
        aligned = {"AlignedBilinear": v1.resize_bilinear,
                   "AlignedNearest": v1.resize_nearest_neighbor,
                   "AlignedBicubic": v1.resize_bicubic}
        for method, resize in aligned.items():
            output = resize(f32(image)[None], [h, w], align_corners=True)[0]
            case("resize", image, output, method=method)
        output = v1.resize_area(f32(image)[None], [h, w])[0]
        case("resize", image, output, method="Area")
    for shape, side in [((17, 25, 3), 11), ((23, 9, 3), 5), ((28, 28, 1), 28), ((7, 10, 1), 12),
                        ((30, 35, 1), 9), ((10, 25, 1), 5)]:
        image = photo(*shape)
        pipe(f"resize_small({side})", image, small(image, side))


def moving():
    image = photo(11, 14)
    pipe("crop(6,9)", image, central(image, 6, 9))
    pipe("central_crop(7)", image, central(image, 7, 7), mode="train")
    pipe("multi_crop(6,9)", image, multi(image, 6, 9))
    pipe("rotate", image, np.concatenate([np.rot90(image, k).flatten() for k in range(4)]))
    image = photo(9, 12)
    crop = central(small(image, 7), 6, 6)
    pipe("copy_label|resize_small(7)|crop(6)|-1_to_1|rotate", image,
         turns(scaled(crop, -1, 1)), level=2 / 255)
    crops = multi(image, 5, 5)
    pipe("multi_crop(5)|rotate", image, np.concatenate([turns(c) for c in crops]))
    for shape in [(5, 6, 3), (4, 7, 1), (3, 1, 1)]:
        image = photo(*shape)
        case("flip", image, tf.image.flip_left_right(image))


def color():
    image = photo(8, 9)
    for text, low, high in [("-1_to_1", -1, 1), ("0_to_1", 0, 1), ("value_range(-3, 5.5)", -3, 5.5),
                            ("value_range(max=2,min=0)", 0, 2)]:
        pipe(text, image, scaled(image, low, high), level=(high - low) / 255)
    pipe("plain_preprocess", image, image)
    gray = tf.tile(tf.reduce_mean(f32(image), axis=2, keepdims=True), [1, 1, 3])
    pipe("to_gray", image, gray)
    for image in [photo(8, 9), photo(7, 5, 1), np.full((4, 4, 1), 77, np.uint8)]:
        level = 1 / max(float(image.std()), 1 / math.sqrt(image.size))
        pipe("standardize", image, tf.image.per_image_standardization(image), level=level)

    ramp = [0, 1, 128, 255]
    grid = np.array([[(r, g, b) for g in ramp for b in ramp] for r in ramp], np.uint8)
    case("rgb_to_hsv", grid, tf.image.rgb_to_hsv(f32(grid) / 255), level=1 / 255)
    case("hsv_to_rgb", grid, tf.image.hsv_to_rgb(f32(grid) / 255), level=1 / 255)

    draws = [(0, [1, 1], [1, 1], [0, 0]), (0.1, [4, 0.25], [1.4, 0.71], [-0.1, 0.1]),
             (-0.1, [0.25, 4], [0.71, 1.4], [0.1, -0.1]), (0.05, [1.3, 0.8], [1.1, 0.9], [0, 0.02])]
    for hue, power, scale, shift in draws:
        hsv = tf.image.rgb_to_hsv(f32(grid) / 255)
        turned = tf.math.floormod(1 + hsv[..., :1] + hue, 1)
        bent = hsv[..., 1:] ** f32(power) * f32(scale) + f32(shift)
        hsv = tf.clip_by_value(tf.concat([turned, bent], axis=-1), 0, 1)
        case("hsv_noise", grid, tf.image.hsv_to_rgb(hsv) * 255,
             hue=hue, power=power, scale=scale, shift=shift)


def slim():
    for brightness, saturation in [(0, 1), (32 / 255, 1.5), (-32 / 255, 0.5), (-0.07, 1.4)]:
        image = photo(7, 6)
        output = tf.image.adjust_brightness(f32(image) / 255, brightness)
        output = tf.clip_by_value(tf.image.adjust_saturation(output, saturation), 0, 1)
        case("inception_color", image, (output - 0.5) * 2, level=2 / 255,
             brightness=brightness, saturation=saturation)
    for shape, (h, w) in [((17, 25, 3), (8, 8)), ((15, 16, 3), (9, 7))]:
        image = photo(*shape)
        crop = tf.image.central_crop(tf.image.convert_image_dtype(image, tf.float32), 0.875)
        output = (legacy(crop, h, w) - 0.5) * 2
        pipe(f"inception_preprocess({h},{w})", image, output, level=2 / 255)
        pipe(f"crop_inception_preprocess_patches(2,{h},{w})", image, np.stack([output] * 2),
             level=2 / 255)


DRAWS = 20_000


def counts(values):
    """Values and their counts, in ascending order."""
    return [column.tolist() for column in np.unique(values, return_counts=True)]


def crops(height, width):
    """20,000 draws of TensorFlow's op, as counts of integers."""
    boxes = tf.zeros([0, 0, 4])
    windows = np.zeros((DRAWS, 4), np.int64)
    for i in range(DRAWS):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            [height, width, 3], boxes, seed=1, use_image_if_no_bounding_boxes=True)
        windows[i] = [*begin.numpy()[:2], *size.numpy()[:2]]
    y, x, h, w = windows.T
    return {
        "height": height,
        "width": width,
        "y": counts(y),
        "x": counts(x),
        "y_plus_x": counts(y + x),
        "crop_height": counts(h),
        "crop_width": counts(w),
        "aspect_percent": counts(100 * w // h),
        "area_permille": counts(1000 * h * w // (height * width)),
        "y_percent_of_free": counts(100 * y // np.maximum(height - h, 1)),
        "x_percent_of_free": counts(100 * x // np.maximum(width - w, 1)),
    }


def main():
    tf.config.run_functions_eagerly(True)
    tf.random.set_seed(1905)
    resizing()
    moving()
    color()
    slim()
    store.write("images.json", cases)
    store.write("crops.json", [crops(28, 28), crops(375, 500), crops(7, 5), crops(96, 20)])


if __name__ == "__main__":
    main()
