"""Make particle images of a molecule that moves, with their truth.

Images are projections, multiplied by a CTF, shifted, with noise added. The molecule is built in (--motion), comes from
a file of atoms (--atoms), whose models are the states, or from density maps (--map), each a state. Projections of atoms
are exact; those of maps are central slices of their transforms. The output folder holds the images
(particles.mrcs, protein is white), their poses and CTF for RELION (particles.star) and cryoDRGN (poses.pkl, ctf.pkl),
the truth (truth.npz) and the map of every state (maps/); with --tilt-deg the tilted images and their CTF too
(particles_tilt.mrcs, ctf_tilt.pkl).

    cryorecon simulate --motion hinge -n 5000 -D 64 --apix 3 --snr 0.1 -o hinge
    cryorecon simulate --map open.mrc closed.mrc --weights 70,30 -D 128 -o two
    cryorecon train_vae hinge/particles.star --zdim 4 -o run
"""

import argparse
import math
from typing import TYPE_CHECKING

from cryorecon.cli import texts
from cryorecon.simulation import MOTIONS

if TYPE_CHECKING:
    from cryorecon.simulation.specimen import Specimen

BOX, APIX = 64, 3.0  # of images of atoms; those of maps are sampled as the maps are


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``simulate``."""
    what = parser.add_argument_group("molecule")
    kind = what.add_mutually_exclusive_group()
    kind.add_argument("--motion", choices=MOTIONS, help="a built-in molecule that moves so (default: hinge)")
    kind.add_argument("--atoms", metavar="FILE", help="atoms instead: .pdb, .cif (each model is a state) or .npz")
    kind.add_argument("--map", nargs="+", metavar="FILE", help="density maps instead: cubic .mrc, each a state")
    what.add_argument("--map-apix", type=float, metavar="Å", help="voxel size of the maps, overrides their headers")
    what.add_argument("--states", type=int, metavar="N", help="number of states of a built-in molecule (default: 20)")
    what.add_argument("--weights", metavar="W,W,...", help="population of each state, in any unit (default: equal)")
    what.add_argument("--b-factor", type=float, metavar="B",
                      help="B factor in Å^2 of all atoms, or of maps beside their own (default: 20; maps: 0)")
    images = parser.add_argument_group("images")
    images.add_argument("-n", type=int, default=5000, metavar="N", help="number of images (default: 5000)")
    images.add_argument("-D", "--box", type=int, metavar="PX",
                        help="side of an image (default: 64; maps: what keeps their extent, made even)")
    images.add_argument("--apix", type=float, metavar="Å", help="pixel size (default: 3; maps: what keeps their extent)")
    images.add_argument("--snr", type=float, default=0.1, metavar="R",
                        help="variance of the signal over that of the noise, whole image; 0: no noise (default: 0.1)")
    images.add_argument("--noise", default="white", metavar="white|FILE",
                        help="spectrum of the noise: white, or a file with one power per shell, of which the shape is taken "
                        "(.txt, .npy; default: white)")
    images.add_argument("--max-shift", type=float, default=3.0, metavar="PX",
                        help="largest shift in x and in y, in pixels, shifts being uniform (default: 3)")
    images.add_argument("--tilt-deg", type=float, metavar="DEG",
                        help="also a second image of every particle, the stage turned by DEG about x (e.g. 45)")
    optics = images.add_mutually_exclusive_group()
    optics.add_argument("--ctf-table", metavar="FILE",
                        help="draw CTFs from tables of cryoDRGN's nine columns (.npz; default: 300 kV, defocus 0.8 to 2.5 µm)")
    optics.add_argument("--no-ctf", action="store_true", help="images without a CTF")
    run = parser.add_argument_group("run")
    run.add_argument("-o", "--outdir", required=True, metavar="DIR", help="output folder")
    run.add_argument("--overwrite", action="store_true", help="replace an earlier simulation in that folder")
    run.add_argument("--float16", action="store_true", help="store half-precision images (MRC mode 12)")
    run.add_argument("--seed", type=int, default=0, metavar="N", help=texts.SEED)
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)")


def main(args: argparse.Namespace) -> None:
    """Simulate and write what ``args`` say.

    Raises
    ------
    InputError: files that are absent or unfit, numbers that make no experiment, options of another kind of molecule, an
    output folder that holds files or whose files are the input.
    """
    from dataclasses import replace
    from pathlib import Path

    import torch

    from cryorecon.data.files import refuse_input
    from cryorecon.simulation.experiment import Experiment
    from cryorecon.simulation.images import ctf_table, noise_spectrum
    from cryorecon.simulation.write import OUTPUTS, earlier_maps, write_simulation

    _check_kind(args)
    for out in [*(Path(args.outdir) / name for name in OUTPUTS), *earlier_maps(args.outdir)]:
        refuse_input(out, (args.atoms, *(args.map or ()), args.ctf_table, args.noise))
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    molecule, box, apix = _molecule(args)
    experiment = Experiment(
        args.n, box, apix, args.snr, args.max_shift, args.b_factor, args.seed, _weights(args.weights),
        optics=None if args.no_ctf else ctf_table(args.ctf_table), device=device,
        tilt=None if args.tilt_deg is None else math.radians(args.tilt_deg),
    )
    if args.noise != "white":
        experiment = replace(experiment, noise=noise_spectrum(args.noise, experiment.grid()))
    write_simulation(molecule, experiment, args.outdir, half_precision=args.float16, overwrite=args.overwrite)
    print(f"{args.outdir}/particles.star: {args.n} images of {molecule.n_states} states")
    if args.tilt_deg is not None:
        print(f"{args.outdir}/particles_tilt.mrcs: the same particles tilted by {args.tilt_deg:g}°")


def _check_kind(args: argparse.Namespace) -> None:
    """Raise where an option belongs to another kind of molecule."""
    from cryorecon.errors import InputError

    if args.states is not None and (args.atoms or args.map):
        raise InputError(f"--states: expected with --motion only, found it with {'--map' if args.map else '--atoms'}; drop "
                         "one of the two")
    if args.map_apix is not None and not args.map:
        raise InputError("--map-apix: expected with --map only, found no --map; --apix is the images' pixel size")


def _molecule(args: argparse.Namespace) -> "tuple[Specimen, int, float]":
    """The molecule, and box and pixel size (Å) of its images."""
    if args.map:
        from cryorecon.simulation.map_molecule import load_maps

        maps = load_maps(args.map, args.map_apix)
        box, apix = maps.sampling(args.box, args.apix)
        print(f"maps: {maps.box} voxels of {maps.apix:.4g} Å ({maps.box * maps.apix:.4g} Å), images: {box} px of "
              f"{apix:.4g} Å ({box * apix:.4g} Å)")
        return maps, box, apix
    from cryorecon.simulation.molecule import load
    from cryorecon.simulation.motion import flexible

    molecule = load(args.atoms) if args.atoms else flexible(args.motion or "hinge", 20 if args.states is None else args.states)
    return molecule, BOX if args.box is None else args.box, APIX if args.apix is None else args.apix


def _weights(text: str | None) -> tuple[float, ...] | None:
    from cryorecon.errors import InputError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--weights: expected numbers with commas between, found {text!r}; e.g. 60,30,10") from error
