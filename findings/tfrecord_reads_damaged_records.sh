#!/usr/bin/env bash
# Guess: TFRecord stores a checksum of each record, so a reader of it refuses a record of which a bit has flipped on a disk or on
# its way.
# Found: tfrecord 1.14.6, the reader that PyTorch users take, computes no checksum: a flipped bit inside a number or an image is
# read as another number or image, without an error. Comparing the masked CRC-32C that stands behind the record finds it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tfrecord==1.14.6 crc32c==2.9.post0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import struct, sys
from importlib.metadata import version
import crc32c
import numpy as np
import tfrecord

print("tfrecord", version("tfrecord"), "crc32c", version("crc32c"))
writer = tfrecord.TFRecordWriter("whole.tfrecord")
writer.write({"heatmap": (np.arange(8, dtype=np.float32).tobytes(), "byte"), "label": (3, "int")})
writer.close()
whole = bytearray(open("whole.tfrecord", "rb").read())
length = struct.unpack("<Q", whole[:8])[0]
place = whole.index(np.arange(8, dtype=np.float32).tobytes()) + 7  # the highest byte of the second number
damaged = bytearray(whole)
damaged[place] ^= 0x40
open("damaged.tfrecord", "wb").write(damaged)


def masked(data):
    crc = crc32c.crc32c(bytes(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


found = {}
for name, data in (("whole", whole), ("damaged", damaged)):
    record = next(iter(tfrecord.tfrecord_loader(f"{name}.tfrecord", None, {"heatmap": "byte", "label": "int"})))
    numbers = np.frombuffer(bytes(record["heatmap"]), np.float32)
    stored = struct.unpack("<I", data[12 + length : 16 + length])[0]
    found[name] = (numbers.tolist(), masked(data[12 : 12 + length]) == stored)
    print(f"{name:8} read as {found[name][0]}; its checksum {'fits' if found[name][1] else 'does not fit'}")
same = found["whole"][1] and not found["damaged"][1] and found["damaged"][0] != found["whole"][0]
sys.exit(0 if same else "the behaviour has changed")
P
