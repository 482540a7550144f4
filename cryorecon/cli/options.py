"""Options that ``train_vae``, ``train_nn``, ``train_gan`` and ``backproject`` share: each fills one field of ``RunConfig``.

Defaults are those of ``RunConfig`` and stand nowhere else: an option that is not given is absent from the parsed
arguments, so that ``--resume`` can tell what was asked for from what was not.
"""

import argparse
from dataclasses import fields
from typing import Any

from cryorecon.cli import texts
from cryorecon.errors import InputError
from cryorecon.training.config import CHOICES, CONV, GAMES, GAN, MULTI, RunConfig, absolute_paths

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RunConfig)}

Group = argparse._ArgumentGroup
Parser = argparse.ArgumentParser

FLAGS: dict[str, tuple[str, ...]] = {
    "poses": ("--poses",), "ctf": ("--ctf",), "ind": ("--ind",), "datadir": ("--datadir",),
    "tomograms": ("--tomograms",), "apix": ("--apix", "--Apix"), "uninvert": ("--uninvert-data",),
    "window": ("--no-window",), "noise": ("--noise",), "mask": ("--mask",), "mask_radius": ("--mask-radius",),
    "symmetry": ("--symmetry", "--sym"), "seed": ("--seed",), "device": ("--device",),
    "checkpoint": ("--checkpoint",), "epochs": ("-n", "--num-epochs"), "batch": ("-b", "--batch-size"),
    "lr": ("--lr",), "points": ("--points",), "amp": ("--amp",), "pose": ("--refine-poses", "--do-pose-sgd"),
    "road": ("--road",), "volume": ("--volume",), "width": ("--dec-dim", "--dim"),
    "layers": ("--dec-layers", "--layers"), "encoding": ("--pe-type",), "features": ("--pe-dim",),
    "feature_sigma": ("--feat-sigma",), "zdim": ("--zdim",), "conformation": ("--conformation",),
    "tilt": ("--tilt",), "tilt_deg": ("--tilt-deg",), "ctf_tilt": ("--ctf-tilt",), "init": ("--init",),
    "pose_init": ("--pose-init",),
    "restarts": ("--restarts",), "searches": ("--searches",), "polishes": ("--polishes",), "t_extent": ("--t-extent",),
    "t_ngrid": ("--t-ngrid",), "base_healpy": ("--base-healpy",), "niter": ("--niter",),
    "nkeptposes": ("--nkeptposes",), "l_start": ("--l-start",), "bound": ("--bound",),
    "search_memory": ("--search-memory",), "schedule": ("--schedule",), "search_epochs": ("--search-epochs",),
    "ps_freq": ("--ps-freq",), "pretrain": ("--pretrain",), "l_end": ("--l-end",),
    "beta": ("--beta",), "enc_width": ("--enc-dim",), "enc_layers": ("--enc-layers",), "atoms": ("--atoms",),
    "critic": ("--critic",), "critic_held": ("--critic-held",), "archetypes": ("--archetypes",), "tied": ("--tied",),
    "critic_width": ("--critic-dim",), "critic_layers": ("--critic-layers",), "critic_steps": ("--critic-steps",),
    "critic_lr": ("--critic-lr",), "penalty": ("--penalty",), "first_band": ("--first-band",),
    "last_band": ("--last-band",), "growth": ("--growth",), "pose_prior": ("--pose-prior",),
    "constraint": ("--constraint",), "background": ("--background",), "contrast": ("--contrast",),
}  # fmt: skip


def _add(group: Group, name: str, text: str, **keywords: Any) -> None:
    """The option of field ``name``; ``text`` is its help, to which the default is added."""
    default = keywords.pop("shown", DEFAULTS[name])  # of a command whose preset is another
    if name in CHOICES and "const" not in keywords:
        keywords = {"choices": CHOICES[name]} | keywords
    if "const" not in keywords and default is not None:
        text += f" (default: {'off' if default is False else default})"
    group.add_argument(*FLAGS[name], dest=name, default=argparse.SUPPRESS, help=text, **keywords)


def add_data(parser: Parser, poses: str = texts.POSES) -> None:
    """Particles and everything that says how to read them. poses: the help of ``--poses``."""
    parser.add_argument("particles", help="images: .star, .cs, .mrcs, .txt (a list of stacks), or a folder that "
                        "preprocess made")
    parser.add_argument("-o", "--outdir", required=True, metavar="DIR", help="output folder")
    group = parser.add_argument_group("data")
    _add(group, "poses", poses, metavar="FILE")
    _add(group, "ctf", texts.CTF, metavar="FILE")
    _add(group, "ind", "positions of the particles to use, from 0 (.pkl, .npy, .txt)", metavar="FILE")
    _add(group, "datadir", texts.DATADIR, metavar="DIR")
    _add(group, "tomograms", texts.TOMOGRAMS, metavar="STAR")
    _add(group, "apix", "pixel size where neither CTF nor star has it", type=float, metavar="Å")
    _add(group, "uninvert", "turn the contrast round: images with a CTF are taken to show white protein, without one "
         "dark", action="store_const", const=True)
    _add(group, "window", "leave the images' corners as they are instead of fading them out", action="store_const",
         const=False)
    _add(group, "noise", "power of the noise: one for each shell of spatial frequency, or one for all")


def add_maps(parser: Parser) -> Group:
    """What the maps are multiplied by."""
    group = parser.add_argument_group("maps")
    _add(group, "mask", "soft mask of the molecule on the images' box (default: a sphere)", metavar="MRC")
    _add(group, "mask_radius", "radius of that sphere, as a fraction of half the box", type=float, metavar="R")
    return group


def add_symmetry(group: Group) -> None:
    """The point group."""
    _add(group, "symmetry", "point group C<n> or D<n>, oriented as RELION does", metavar="GROUP")


def add_run(parser: Parser) -> Group:
    """Seed and device."""
    group = parser.add_argument_group("run")
    _add(group, "seed", "seed of everything random", type=int, metavar="N")
    _add(group, "device", "where to compute: auto, cpu, cuda, cuda:1", metavar="NAME")
    return group


def add_training(parser: Parser) -> None:
    """How long, how fast, and what may be continued."""
    group = parser.add_argument_group("training")
    poses = group.add_mutually_exclusive_group()
    _add(group, "epochs", "passes of the network over the data", type=int, metavar="N")
    _add(group, "batch", "particles in a batch", type=int, metavar="N")
    _add(group, "lr", "learning rate of the network (Adam)", type=float, metavar="R")
    _add(group, "points", "fraction of an image's Fourier points that a step sees, above 0 and up to 1",
         type=float, metavar="R")
    _add(group, "amp", "matrix products in bfloat16: faster on a GPU, less exact", action=argparse.BooleanOptionalAction)
    _add(poses, "pose", "refine rotations and shifts by gradient from the given ones", action="store_const",
         const="refine")
    poses.add_argument("--search-poses", dest="pose", action="store_const", const="search", default=argparse.SUPPRESS,
                       help="find the poses, whatever poses the particles come with")
    group.add_argument("--halves", action="store_true", help="train two runs, half_1 and half_2, on halves of the particles "
                       "that never meet, and compare them (gold_standard)")
    add_checkpoints(add_run(parser))


def add_search(parser: Parser) -> None:
    """How poses are found where there are none; and tilt pairs."""
    group = parser.add_argument_group("search of poses (without --poses)")
    _add(group, "init", "start from this map, or that of this run, at low resolution, instead of from random ones; its hand is "
         "kept", metavar="RUN|MRC")
    _add(group, "pose_init", "start from these poses, and search near them only", metavar="FILE")
    _add(group, "restarts", "random starts, of which the likeliest goes on", type=int, metavar="N")
    _add(group, "searches", "most passes of search over all images; they end when poses stay", type=int, metavar="N")
    _add(group, "polishes", "most passes that only polish poses; they end when poses stand still", type=int, metavar="N")
    _add(group, "t_extent", "largest shift in pixels (default: 8 %% of the box)", type=float, metavar="PX")
    _add(group, "t_ngrid", "shifts per side of the base grid (default: a fortieth of the box apart)", type=int, metavar="N")
    _add(group, "base_healpy", "spacing of the base grid of rotations: 1 is 30°, 2 15°, 3 7.5°", type=int, metavar="N")
    _add(group, "niter", "times the grid's best poses are divided, each time to half the spacing", type=int, metavar="N")
    _add(group, "nkeptposes", "best poses that are divided each time", type=int, metavar="N")
    _add(group, "l_start", "images meet the base grid up to this radius, in Fourier pixels", type=float, metavar="L")
    _add(group, "bound", "also drop poses by a lower bound of their energy, as cryoDRGN2 does, beside --nkeptposes")
    _add(group, "search_memory", "memory for each core's energies, in MB (default: 256; on a GPU a 32nd of what is "
         "free)", type=int, metavar="MB")
    _add(group, "schedule", "em: in closed form; network: as cryoDRGN, which trains and searches every few epochs")
    _add(group, "search_epochs", "of --schedule network: epochs until the poses count as found", type=int, metavar="N")
    _add(group, "ps_freq", "of --schedule network: epochs from one search to the next", type=int, metavar="N")
    _add(group, "pretrain", "of --schedule network: images seen at random poses first", type=int, metavar="N")
    _add(group, "l_end", "of --schedule network: --l-start grows to this radius, in Fourier pixels", type=float, metavar="L")
    group = parser.add_argument_group("tilt pairs")
    _add(group, "tilt", "images of the same particles after the stage was tilted, in the same order", metavar="FILE")
    _add(group, "tilt_deg", "angle of that tilt, in degrees", type=float, metavar="DEG")
    _add(group, "ctf_tilt", "CTF of the tilted images, where it is not that of the others (.pkl, .npy, .star, .cs)",
         metavar="FILE")


def add_volume(parser: Parser) -> None:
    """The volume and the road to it."""
    group = parser.add_argument_group("volume")
    _add(group, "road", "lowrank: closed-form maps first and the network on top of them; plain: the network from "
         "scratch, as cryoDRGN does")
    _add(group, "volume", "mlp: a network; voxels: the closed-form maps as they are", choices=("mlp", "voxels"))
    _add(group, "width", "units of a hidden layer of the network", type=int, metavar="N")
    _add(group, "layers", "hidden layers of the network", type=int, metavar="N")
    _add(group, "encoding", "positional encoding: random Fourier features, or wavelengths in a geometric series")
    _add(group, "features", "features of the encoding along each axis (default: half the box)", type=int, metavar="N")
    _add(group, "feature_sigma", "scale of the gaussian features", type=float, metavar="R")


def add_game(parser: Parser) -> None:
    """The game between critic and generator, and what is drawn at random."""
    group = parser.add_argument_group("generator")
    _add(group, "volume", "density: one map; or a map for each alpha in [0, 1] (Multi-CryoGAN), archetypes: mixed of a few, "
         "conv: made by a network",
         choices=tuple(GAMES), shown=GAN["volume"])
    _add(group, "archetypes", "of --volume archetypes: how many maps are mixed", type=int, metavar="N")
    _add(group, "tied", "of --volume archetypes: fraction of the epochs during which they are one map, from 0 to below 1",
         type=float, metavar="R")
    _add(group, "width", "of --volume conv: channels of the network at full size", type=int, metavar="N", shown=CONV["width"])
    _add(group, "constraint", "of the map's voxels: none below zero; radial: also none above a cap that falls to zero at the "
         "mask's rim")
    _add(group, "pose_prior", "draw views, and shifts, from this file's poses (.pkl, .npy, .star, .cs), of whatever images; "
         "in-plane angles stay uniform (default: all views alike)", metavar="FILE")
    _add(group, "t_extent", "largest shift in pixels, shifts being uniform (default: those of --pose-prior, else 0)",
         type=float, metavar="PX")
    _add(group, "background", "patches of empty ice as noise, a star from preprocess --background (default: Gaussian noise "
         "of the spectrum in the images' corners)", metavar="FILE")
    _add(group, "lr", f"learning rate of the map, in units of the particle's own density (default: {GAN['lr']}; of --volume "
         f"conv {CONV['lr']})", type=float, metavar="R", shown=None)
    _add(group, "first_band", "fraction of Nyquist that the critic sees at first, above 0 and up to 1", type=float, metavar="R")
    _add(group, "last_band", "the same at last; below 1 where there is nothing to see beyond, or to save time", type=float,
         metavar="R")
    _add(group, "growth", "fraction of the epochs until it sees that, above 0 and up to 1", type=float, metavar="R")
    group = parser.add_argument_group("critic")
    _add(group, "critic", "polar: templates that turn in the plane; conv: CryoGAN's convolutions (which want --critic-steps 4)")
    _add(group, "critic_width", "size K of the critic: 4 K templates, or convolutions of 2 K, 4 K, ... channels",
         type=int, metavar="N")
    _add(group, "critic_layers", "of --critic conv: layers, each of which halves the image (default: down to 4 px)",
         type=int, metavar="N")
    _add(group, "critic_steps", "steps of the critic for one of the generator", type=int, metavar="N")
    _add(group, "critic_lr", "learning rate of the critic", type=float, metavar="R")
    _add(group, "critic_held", "what keeps the critic smooth: a penalty of its gradient between real and simulated images, "
         "at real ones (r1), or spectral norms")
    _add(group, "penalty", "weight of that penalty, or of R1", type=float, metavar="R")
    _add(group, "contrast", "fraction of the epochs after which the critic is the likelihood of the maps themselves, from all "
         "views; in whole epochs, from 0 to 1, which is never (default: of --volume archetypes 2/3 of --tied, else 1)",
         type=float, metavar="R")
    group = parser.add_argument_group("training")
    _add(group, "epochs", f"passes over the data (default: {GAN['epochs']}; of several maps {MULTI['epochs']})", type=int,
         metavar="N", shown=None)
    _add(group, "batch", "images in a batch", type=int, metavar="N", shown=GAN["batch"])
    add_checkpoints(add_run(parser))


def add_checkpoints(group: Group) -> None:
    """How often a run is saved, and going on with it."""
    _add(group, "checkpoint", "epochs between checkpoints", type=int, metavar="N")
    group.add_argument("--resume", action="store_true", help="continue the run in -o from its last checkpoint")
    group.add_argument("--load", choices=("latest",), help="the same as --resume, as cryoDRGN says it")


def add_conformation(parser: Parser) -> None:
    """What is inferred about each particle, and its prior."""
    group = parser.add_argument_group("conformation")
    group.add_argument("--zdim", type=int, metavar="N", default=argparse.SUPPRESS,
                       help="numbers that describe a particle, an upper bound: 1 or more (required)")
    _add(group, "conformation", "z from the closed-form posterior under the linear volume, from an encoder network (VAE), or "
         "a table, free for each particle; --road plain takes an encoder", choices=("posterior", "encoder", "table"))
    _add(group, "beta", "weight of an encoder's or a table's prior, as cryoDRGN counts it (default: 1/zdim)", type=_weight,
         metavar="R")
    _add(group, "enc_width", "units of a hidden layer of the encoder", type=int, metavar="N")
    _add(group, "enc_layers", "hidden layers of the encoder", type=int, metavar="N")
    _add(group, "atoms", "points of the learned prior of z; 0: a Gaussian", type=int, metavar="N")


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}; schedules of beta, which cryoDRGN names by a "
                                         "letter, don't exist here: give the value at their end, --beta 0.5 say") from None


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``RunConfig`` that the command line names; paths absolute."""
    return absolute_paths({name: value for name, value in vars(args).items() if name in DEFAULTS})


def configuration(table: dict[str, Any]) -> RunConfig:
    """The configuration of a table of fields; what is wrong with a field is said of its option.

    Raises
    ------
    InputError: fields that make no run.
    """
    try:
        return RunConfig(**table)
    except InputError as error:
        name, colon, rest = str(error).partition(": ")
        raise InputError(f"{spelled(name)}{colon}{rest}") from None


def spelled(name: str) -> str:
    """The longest option of field ``name``."""
    return max(FLAGS.get(name, (name,)), key=len)
