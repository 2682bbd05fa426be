"""The loop of the DatasetDM paper (Wu et al. 2023, arXiv 2308.06160), written from its description.

One image at a time, float32, explicit attention kept from every layer and step, 50 guided steps, one decoder pass per class.
Features are read by our pass instead of the last step, which costs one evaluation more in a hundred.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from datasetdm.backbones import load_backbone
from datasetdm.backbones.hub import BUILTIN
from datasetdm.decoder.blocks.transformer import upsample
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder
from datasetdm.pipelines.generate import DatasetGenerator

STEPS = 50


class PaperLoop:
    """One image after the other, with our decoder in float32 in place of theirs, so that its size is the same for both."""

    def __init__(self, pipe: Any, folder: Path, generator: DatasetGenerator, device: torch.device):
        self.pipe, self.device, self.guidance = pipe, device, generator.guidance
        self.pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        self.labels = generator.labels.names
        config = generator.decoder.config
        name = "mini" if folder == BUILTIN["mini"] else str(folder)
        self.reader = load_backbone(name, config=config.features, device=device.type, dtype=torch.float32)
        self.decoder = PDecoder(config).to(device).eval()
        self.decoder.load_state_dict(generator.decoder.state_dict())
        self.kept: dict[int, torch.Tensor] = {}
        pipe.unet.set_attn_processor(Explicit(self.kept))

    @torch.no_grad()
    def image(self, text: str, seed: int) -> None:
        self.kept.clear()
        options = dict(num_inference_steps=STEPS, guidance_scale=self.guidance, output_type="latent")
        latents = self.pipe([text], **options, generator=torch.Generator("cpu").manual_seed(seed)).images
        features = self.reader.features(latents, [text], self.labels)
        attention = {s.name for s in self.decoder.config.specs if s.kind == "attention"}
        for i in range(len(self.labels)):
            maps = {n: x[:, i : i + 1] if n in attention else x for n, x in features.maps.items()}
            outputs = self.decoder(DecoderInput(maps, features.text[i : i + 1]))
            for x in (x for task in outputs.values() for x in task.named().values()):
                upsample(x, self.reader.size)


class Explicit:
    """Attention as a softmax of a full matrix, which is added up over the steps."""

    def __init__(self, kept: dict[int, torch.Tensor]):
        self.kept = kept

    def __call__(self, attn: Attention, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        to_k, to_v, to_out = cast(Any, (attn.to_k, attn.to_v, attn.to_out))  # None only in classes without them
        x, context = hidden_states, hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (attn.head_to_batch_dim(f(y)) for f, y in ((attn.to_q, x), (to_k, context), (to_v, context)))
        p = attn.get_attention_scores(q, k)
        self.kept[id(attn)] = self.kept[id(attn)] + p if id(attn) in self.kept else p
        return to_out[1](to_out[0](attn.batch_to_head_dim(p @ v)))
