"""Annotated images from prompts, with the embedded model, one after the other."""

import numpy as np

import datasetdm as ddm

prompts = ["a photo of a red bus on a city street", "a photo of two white boats on the water"]

for sample in ddm.generate(prompts, count=4, seed=1):
    semantic, depth = sample.semantic, sample.depth
    assert semantic and depth  # the embedded decoder gives both; others may not
    found = [sample.labels.names[i] for i in np.unique(semantic.ids)]
    nearest = depth.depth[depth.valid].min()
    print(f"{sample.caption}: {', '.join(found)}; nearest thing at {nearest:.1f} m")
