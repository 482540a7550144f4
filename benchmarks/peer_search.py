"""cryodrgn's pose search of the first images of a simulation, with its own network of default size or with the true map in
the network's place (trilinear, four times oversampled), at its default settings: poses and processor time an image.

A script for the peer's interpreter; it imports PyTorch, numpy and cryodrgn alone. The map is brought to the images' scale at
their true poses. OUT is JSON, and the poses lie beside it (.pkl).

    python benchmarks/peer_search.py FOLDER MAP network|map IMAGES OUT
"""

import argparse
import json
import pickle
import sys
import time
from typing import Any

import numpy as np
import torch


class Map(torch.nn.Module):
    """A known map where the network would be: its Hartley transform at points (..., 3) of [-.5, .5]."""

    def __init__(self, density: np.ndarray, pad: int = 4):
        from cryodrgn import fft

        super().__init__()
        size, box = pad * len(density), len(density)
        start = size // 2 - box // 2
        padded = torch.zeros(size, size, size)
        padded[(slice(start, start + box),) * 3] = torch.from_numpy(density)
        values = fft.htn_center(padded)
        for axis in range(3):
            values = torch.cat([values, values.narrow(axis, 0, 1)], axis)
        self.values = torch.nn.Parameter(values[None, None], requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values (..., 1)."""
        at = 2 * x.reshape(1, 1, 1, -1, 3)
        return torch.nn.functional.grid_sample(self.values, at, align_corners=True).view(*x.shape[:-1], 1)

    def scale(self, images: torch.Tensor, transfer: torch.Tensor, lattice: Any, folder: str) -> float:
        """Make it predict images (B, D, D) of CTF (B, D, D) best at their true poses; the correlation there."""
        from cryodrgn import utils

        count, D = images.shape[:2]
        rot, trans = (torch.as_tensor(part[:count]).float() for part in utils.load_pkl(folder + "/poses.pkl"))
        disk = lattice.get_circular_mask(D // 2)
        true = self(lattice.coords[disk] @ rot)[..., 0] * transfer.view(count, -1)[:, disk]
        seen = lattice.translate_ht(images.view(count, -1)[:, disk], trans[:, None] * (D - 1), disk).view(count, -1)
        self.values *= (seen * true).sum() / (true * true).sum()
        return float((seen * true).sum() / (seen.norm() * true.norm()))


def opened(args: argparse.Namespace, folder: str, count: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The lattice, and Hartley transforms (B, D, D) and CTF (B, D, D) of the first images."""
    from cryodrgn import ctf, dataset
    from cryodrgn.lattice import Lattice

    data = dataset.ImageDataset(args.particles, lazy=False, invert_data=args.invert_data, window_r=args.window_r)
    D = data.D
    lattice = Lattice(D, extent=0.5)
    params = torch.tensor(ctf.load_ctf_for_training(D - 1, folder + "/ctf.pkl"))[:count]
    freqs = lattice.freqs2d[None] / params[:, 0].view(-1, 1, 1)
    transfer = ctf.compute_ctf(freqs, *torch.split(params[:, 1:], 1, 1)).view(count, D, D)
    return lattice, data[list(range(count))]["y"], transfer


def shared_seconds(model: torch.nn.Module, points: torch.Tensor, chunks: int) -> float:
    """Processor time of what a batch shares, the base grid's slices; the first time warms up."""
    for _ in range(2):
        began = time.process_time()
        for part in points.chunk(chunks):
            model(part)
        shared = time.process_time() - began
    return shared


def main() -> None:
    from cryodrgn import mrcfile
    from cryodrgn.commands import abinit_homo_old
    from cryodrgn.pose_search import PoseSearch

    folder, path, kind, number, out = sys.argv[1:]
    count = int(number)
    parser = argparse.ArgumentParser()
    abinit_homo_old.add_args(parser)
    args = parser.parse_args([folder + "/particles.mrcs", "-o", out, "--seed", "0"])
    np.random.seed(0)  # noqa: NPY002 - what the peer draws from
    torch.manual_seed(0)
    lattice, images, transfer = opened(args, folder, count)
    D, fit = images.shape[-1], None
    if kind == "map":
        model = Map(mrcfile.parse_mrc(path)[0]).eval()
        fit = model.scale(images, transfer, lattice, folder)
    else:
        model = abinit_homo_old.make_model(args, D).eval()
    chosen = {key: getattr(args, key) for key in ("t_extent", "t_ngrid", "niter", "nkeptposes", "base_healpy")}
    search = PoseSearch(model, lattice, args.l_start, min(args.l_end, D // 2), device=torch.device("cpu"), **chosen)
    with torch.no_grad():
        shared = shared_seconds(model, lattice.coords[lattice.get_circular_mask(args.l_start)] @ search.base_rot,
                                args.nkeptposes)
        began = time.process_time()
        poses = [search.opt_theta_trans(images[part], ctf_i=transfer[part])[:2]
                 for part in torch.arange(count).split(args.batch_size)]
        used = time.process_time() - began
    with open(out.replace(".json", ".pkl"), "wb") as file:
        pickle.dump(tuple(torch.cat(part).numpy() for part in zip(*poses, strict=True)), file)
    batches = -(-count // args.batch_size)
    each = (used - batches * shared) / count + shared / args.batch_size
    with open(out, "w") as file:
        json.dump({**chosen, "l_start": args.l_start, "l_end": search.Lmax, "batch": args.batch_size, "images": count,
                   "kind": kind, "correlation": fit, "search_cpu_seconds": used, "shared_cpu_seconds": shared,
                   "cpu_seconds_an_image": each}, file)


if __name__ == "__main__":
    main()
