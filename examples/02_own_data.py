"""Own labelled images in, a decoder out, a COCO folder from it. Here the images are exported from the mini world."""

import sys
import tempfile
from itertools import islice
from pathlib import Path

import datasetdm as ddm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

# Stand-in for your own annotations: eight labelled images as a COCO file.
given = ddm.read("mini:train")
ddm.write_store(islice(given, 8), folder / "given", given.labels)
ddm.export(folder / "given", "coco", folder / "own")

# Your own data: a COCO file, its images in `images/` beside it (or pass images=FOLDER).
own = ddm.read(f"coco:{folder / 'own' / 'annotations' / 'instances.json'}")
print(f"{len(own)} images, {len(own.labels)} labels")

# A real fit takes the default settings, minutes on a CPU; this one only shows the way.
decoder = ddm.fit(own, folder / "decoder", tasks=("semantic",), steps=4, variants=1, evaluate_every=4)

prompts = ["a photo of a brown dog in a park", "a photo of a yellow car on a road"]
samples = ddm.generate(prompts, decoder=decoder, count=2, steps=4)
ddm.write_store(samples, folder / "made", decoder.config.labels)
print(ddm.export(folder / "made", "coco", folder / "coco"), "images in", folder / "coco")
