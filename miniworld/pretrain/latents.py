"""Stage `latents`: every image and its mirror, encoded once and kept in the work folder.

The file names the VAE and the data it was made of, and is made anew when one of them changes. Latents are kept as the
VAE gives them; `scale` brings them to unit spread. It is measured once a VAE: the UNet always sees the same scale.
"""

from __future__ import annotations

import hashlib
import json

import torch
from datasetdm.decoder.tensor_files import load_numbers, load_tensors, save_tensors
from datasetdm.io.files import write_json
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from . import PretrainError, hardware
from .data import Captioned
from .vae import load_vae, normal
from .work import Work


def load_latents(work: Work, data: Captioned, *, half: bool = False) -> Tensor:
    """Scaled latents of all images, then of their mirrors: f16[2n c 16 16] on the device.

    half: of images averaged to half their side, f16[2n c 8 8].
    """
    vae = load_vae(work)
    key = {"vae": fingerprint(vae), "data": data.identity}
    path = work.latents(half)
    if not path.is_file() or load_numbers(path) != key:
        print(f"latents: encoding {len(data)} images and their mirrors{' at half size' * half}", flush=True)
        encoded = encode(vae, data.images(), work.preset.latents.batch, half)
        save_tensors(path, {"latents": encoded}, key)
    latents = load_tensors(path)["latents"]
    return (latents * _scale(work, vae, data, None if half else latents)).to(hardware.device())


def load_scale(work: Work) -> float:
    """The factor between the present VAE's latents and what the UNet sees."""
    noted = read_scale(work, fingerprint(load_vae(work)))
    if noted is None:
        raise PretrainError("the latents' scale is not known for this VAE yet: run stage latents first")
    return noted


def read_scale(work: Work, vae: str) -> float | None:
    """The noted scale, if it belongs to the VAE with this fingerprint."""
    noted = json.loads(work.scale.read_text()) if work.scale.is_file() else {}
    return noted["scale"] if noted.get("vae") == vae else None


def fingerprint(vae: AutoencoderKL) -> str:
    """A name that other weights of the encoder do not have: latents depend on nothing else."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(("decoder.", "post_quant_conv.")):
            continue
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch: int, half: bool = False) -> Tensor:
    """u8[n 3 h w] -> latent means f16[2n c h/8 w/8] on the CPU, mirrors last; half: an eighth of half the side."""
    vae, encoded = vae.to(hardware.device()), []
    for flip in (False, True):
        for part in images.split(batch):
            x = part.to(hardware.device())
            if half:
                x = F.avg_pool2d(x.float(), 2).round()
            x = normal(x.flip(-1) if flip else x)
            with hardware.autocast():
                encoded.append(vae.encode(x).latent_dist.mean.half().cpu())
    return torch.cat(encoded)


def _scale(work: Work, vae: AutoencoderKL, data: Captioned, latents: Tensor | None) -> float:
    """The noted scale, or one measured now on the full-size latents."""
    vae_name = fingerprint(vae)
    noted = read_scale(work, vae_name)
    if noted is None:
        if latents is None:
            load_latents(work, data)
            return load_scale(work)
        noted = float(1 / latents.float().std())
        write_json(work.scale, {"vae": vae_name, "scale": noted})
    return noted
