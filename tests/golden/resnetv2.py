"""A network of timm's and its logits, for tests/results/export.rs.

    pip install torch==2.15.0 timm==1.0.31 zstandard && python tests/golden/resnetv2.py [FOLDER]

writes resnetv2/config.json, resnetv2/model.safetensors and resnetv2/logits.json into FOLDER (default:
beside this script): a small ResNetV2(stem_type="fixed") as timm saves it, with random weights and
moving statistics, and its logits for the first four training images of pipelines/smoke/data. The
same versions give the same bytes.
"""

import json
import pathlib
import sys

import timm
import torch
import zstandard

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / "pipelines/smoke/data"
IMAGES = 4


def network():
    generator = torch.Generator().manual_seed(1905)
    model = timm.create_model(
        "resnetv2_50", stem_type="fixed", layers=[1, 1], channels=[64, 128], stem_chs=16, in_chans=1,
        num_classes=10,
    ).eval()
    for name, tensor in model.state_dict().items():
        normal = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            # Around the difference of the epsilons, 1e-3 - 1e-5.
            tensor.copy_(10 ** (torch.rand(tensor.shape, generator=generator) * 2 - 4))
        elif not name.endswith("num_batches_tracked"):
            tensor.copy_(normal * 0.07)
    return model


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    folder = folder / "resnetv2"
    model = network()
    classes = (DATA / "classes.txt").read_text().splitlines()
    timm.models.save_for_hf(
        model, folder, safe_serialization=True,
        model_config={"label_names": classes},
        data_config={"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0},
    )
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(
        (DATA / "train-images-idx3-ubyte.zst").read_bytes())
    pixels = torch.frombuffer(bytearray(raw[16:16 + IMAGES * 28 * 28]), dtype=torch.uint8)
    images = pixels.reshape(IMAGES, 1, 28, 28).double() / 255 * 2 - 1
    with torch.no_grad():
        # In float64, so that the tolerance covers only our rounding.
        logits = model.double()(images)
    (folder / "logits.json").write_text(json.dumps(logits.tolist()) + "\n")


if __name__ == "__main__":
    main()
