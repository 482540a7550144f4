"""What a run is: one frozen table of plain values, written to ``config.yaml``."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from cryorecon.data.files import read_text
from cryorecon.errors import InputError

MAX_BYTES = 1 << 16  # of a configuration
DEEPEST = 20  # levels of tables and lists in it
NO_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
           RecursionError)  # what PyYAML raises for impossible dates and numbers, and for texts that nest

PATHS = ("particles", "poses", "ctf", "ind", "datadir", "tomograms", "mask", "init", "pose_init", "pose_prior", "tilt",
         "ctf_tilt", "background")


def absolute_paths(table: dict[str, Any]) -> dict[str, Any]:
    """``table`` of configuration fields with its paths made absolute, so that a run can be opened from anywhere."""
    return table | {name: os.path.abspath(table[name]) for name in PATHS if table.get(name) is not None}


MIN_LIMIT = 3
CHOICES = {  # the registries' names (a test compares them): this file imports no torch
    "volume": ("mlp", "voxels", "density", "archetypes", "conv"), "critic": ("polar", "conv"),
    "critic_held": ("penalty", "r1", "spectral"),
    "conformation": ("fixed", "encoder", "posterior", "table", "prior"),
    "objective": ("likelihood", "adversarial"), "pose": ("given", "refine", "search", "prior"),
    "road": ("lowrank", "plain"), "encoding": ("gaussian", "geometric"),
    "noise": ("shells", "white"), "schedule": ("em", "network"), "bound": ("none", "rigorous", "probabilistic"),
    "constraint": ("positive", "radial", "none"),
}

GAN: dict[str, Any] = {  # what makes a run CryoGAN's
    "objective": "adversarial", "pose": "prior", "volume": "density", "conformation": "fixed", "epochs": 10, "batch": 64,
    "lr": 0.07,
}  # fmt: skip
MULTI: dict[str, Any] = GAN | {  # of several maps
    "volume": "archetypes", "zdim": 1, "conformation": "prior", "epochs": 20,
}  # fmt: skip
CONV: dict[str, Any] = MULTI | {"volume": "conv", "width": 16, "lr": 1e-3}  # by Multi-CryoGAN's network
GAMES = {"density": GAN, "archetypes": MULTI, "conv": CONV}


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run.

    Data: particles, poses, ctf, ind, datadir, tomograms: paths; apix: Å/px override; uninvert: the other
    contrast (see :func:`cryorecon.data.stack.contrast_sign`); window: soft circular window; noise: ``shells`` or
    ``white``. Model: volume ``mlp`` or ``voxels``; conformation ``fixed``, ``encoder``, ``posterior`` or ``table``;
    pose ``given``, ``refine`` or ``search`` (whatever poses the files hold); zdim; road ``lowrank`` (closed-form
    consensus and components first) or ``plain`` (network from scratch).
    Network: width, layers, enc_width, enc_layers, encoding, features (None: half the box), feature_sigma.
    Training: epochs, batch (particles), lr, beta (CryoDRGN's; None: 1 / zdim), points (fraction of Fourier points a
    step sees), amp (bfloat16 products), checkpoint (epochs between), seed, device.
    Tilt pairs: tilt, ctf_tilt: paths of the tilted images; tilt_deg. Search of poses, where there are none: init (path of a run
    or a map: where it begins, instead of at random), pose_init (path: local search around these), restarts (random starts),
    searches, polishes (passes), t_extent (largest shift in px, None: 8 % of the box), t_ngrid (shifts per side of the base
    grid, None: a fortieth of the box apart), base_healpy (level of the base grid), niter (subdivisions), nkeptposes (nodes
    kept), l_start (band in Fourier pixels of the base grid), bound (see :mod:`cryorecon.inference.pose.search`), search_memory
    (MB; None: as the device bears). schedule: ``em``, or ``network``: search_epochs of training, a search before every
    ps_freq-th, after pretrain images at random poses, in a band that grows from l_start to l_end Fourier pixels.
    objective: ``likelihood``, or ``adversarial`` (:data:`GAMES`): critic ``polar`` or ``conv``, critic_width, critic_layers (of
    ``conv``; None: halvings down to 4 px), critic_steps for one of the generator, critic_lr, critic_held smooth by a gradient
    ``penalty`` of that weight, ``r1`` or ``spectral`` norms; archetypes (number of maps), tied (fraction of the passes during
    which they are one); contrast (fraction of the passes after which the critic is the likelihood of the maps themselves;
    None: 2/3 of tied, of archetypes, else 1: never); first_band, last_band (fractions of Nyquist that the critic sees at
    first and at last), growth (fraction of the passes between); background (path: patches of empty ice as the simulator's
    noise; None: Gaussian); t_extent is then the largest shift drawn (None: 0), pose_prior a path: of poses from which
    rotations, and shifts without t_extent, are drawn (None: all alike); constraint ``positive``, ``radial`` or ``none``: of
    the density's voxels.
    Maps: symmetry, mask (path, or None: a sphere), mask_radius (fraction of the half box), limit (band in Fourier
    pixels, None: all), atoms (of the learned latent prior; 0: Gaussian).
    """

    particles: str
    poses: str | None = None
    ctf: str | None = None
    ind: str | None = None
    datadir: str | None = None
    tomograms: str | None = None
    apix: float | None = None
    uninvert: bool = False
    window: bool = True
    noise: str = "shells"
    volume: str = "mlp"
    conformation: str = "posterior"
    pose: str = "given"
    zdim: int = 0
    road: str = "lowrank"
    width: int = 256
    layers: int = 3
    enc_width: int = 256
    enc_layers: int = 3
    encoding: str = "gaussian"
    features: int | None = None
    feature_sigma: float = 0.5
    epochs: int = 2
    batch: int = 16
    lr: float = 5e-4
    beta: float | None = None
    points: float = 0.5
    amp: bool = False
    checkpoint: int = 1
    seed: int = 0
    device: str = "auto"
    symmetry: str = "C1"
    mask: str | None = None
    mask_radius: float = 0.85
    limit: float | None = None
    atoms: int = 150
    tilt: str | None = None
    tilt_deg: float = 45.0
    ctf_tilt: str | None = None
    init: str | None = None
    pose_init: str | None = None
    restarts: int = 3
    searches: int = 8
    polishes: int = 8
    t_extent: float | None = None
    t_ngrid: int | None = None
    base_healpy: int = 2
    niter: int = 2
    nkeptposes: int = 8
    l_start: float = 11.0
    bound: str = "none"
    search_memory: int | None = None
    schedule: str = "em"
    search_epochs: int = 30
    ps_freq: int = 5
    pretrain: int = 10_000
    l_end: float = 32.0
    objective: str = "likelihood"
    critic: str = "polar"
    critic_width: int = 16
    critic_layers: int | None = None
    critic_steps: int = 1
    critic_lr: float = 5e-3
    critic_held: str = "penalty"
    penalty: float = 10.0
    archetypes: int = 6
    tied: float = 0.5
    contrast: float | None = None
    first_band: float = 0.5
    last_band: float = 1.0
    growth: float = 0.5
    pose_prior: str | None = None
    constraint: str = "positive"
    background: str | None = None

    def __post_init__(self) -> None:
        self._check_values()
        self._check_parts()

    def _check_values(self) -> None:
        """Each field by itself."""
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise InputError(f"{name}: expected one of {', '.join(valid)}, found {getattr(self, name)!r}")
        for name in ("epochs", "zdim", "seed", "atoms", "searches", "polishes", "niter", "pretrain"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected 0 or more, found {getattr(self, name)}")
        for name in ("width", "layers", "enc_width", "enc_layers", "batch", "checkpoint", "lr", "mask_radius",
                     "feature_sigma", "restarts", "base_healpy", "nkeptposes", "l_start", "l_end", "search_epochs", "ps_freq",
                     "critic_width", "critic_steps", "critic_lr", "penalty", "archetypes"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}: expected more than 0, and finite, found {getattr(self, name)}")
        if self.limit is not None and not self.limit >= MIN_LIMIT:
            raise InputError(f"limit: expected a band of at least {MIN_LIMIT} Fourier pixels, found {self.limit}")
        for name in ("t_extent", "t_ngrid", "features", "search_memory", "critic_layers"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}: expected more than 0, and finite, found {getattr(self, name)}; leave it out for the "
                                 "default")
        if self.beta is not None and not 0 <= self.beta < float("inf"):
            raise InputError(f"beta: expected 0 or more, found {self.beta}")
        if not 0 <= self.tied < 1:
            raise InputError(f"tied: expected a fraction in [0, 1), found {self.tied}")
        if self.contrast is not None and not 0 <= self.contrast <= 1:
            raise InputError(f"contrast: expected a fraction in [0, 1], found {self.contrast}")
        for name in ("points", "first_band", "last_band", "growth"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a fraction in (0, 1], found {getattr(self, name)}")

    def _check_parts(self) -> None:
        """Fields that must fit each other."""
        self._check_game()
        if self.searches + self.polishes < 1:
            raise InputError("expected at least one pass of search or polish, found none")
        if self.ctf_tilt is not None and self.tilt is None:
            raise InputError("ctf_tilt: expected tilted images with it, found none; give --tilt")
        if (self.zdim == 0) != (self.conformation == "fixed"):
            raise InputError(f"expected zdim of at least 1 with a conformation to infer, and zdim 0 with 'fixed'; found "
                             f"zdim {self.zdim} with {self.conformation!r}")
        if self.conformation == "posterior" and self.road == "plain":
            raise InputError("the closed-form posterior needs a linear volume: expected road 'lowrank', found 'plain'; use "
                             "conformation 'encoder' or 'table' with it")
        if self.symmetry.upper() != "C1" and self.schedule == "network":
            raise InputError(f"symmetry: expected C1 with schedule 'network', whose frame no axis fixes, found "
                             f"{self.symmetry}; leave --schedule out")
        if self.symmetry.upper() != "C1" and self.zdim:
            raise InputError(f"symmetry: expected C1 where conformations are inferred, found {self.symmetry}")

    def _check_game(self) -> None:
        """An adversarial objective draws what others infer, and needs maps in real space."""
        game = self.objective == "adversarial"
        if game != (self.pose == "prior") or game != (self.volume in GAMES):
            raise InputError(f"objective: expected 'adversarial' with pose 'prior' and volume {', '.join(GAMES)}, "
                             f"and none of these without the others, found {self.objective!r}, {self.pose!r} and "
                             f"{self.volume!r}")
        several = self.volume in GAMES and self.volume != "density"
        if several != (self.conformation == "prior") or (several and self.zdim != 1):
            raise InputError("volume: expected maps along alpha with conformation 'prior' and zdim 1, found "
                             f"{self.volume!r}, {self.conformation!r} and {self.zdim}")
        if self.background is not None and not game:
            raise InputError("background: expected objective 'adversarial' with it, whose simulator makes noise, found "
                             f"{self.objective!r}; leave it out")
        if game and self.tilt is not None:
            raise InputError(f"objective: expected no tilted images with 'adversarial', found {self.tilt}; leave them out")

    @property
    def kl_weight(self) -> float:
        """Weight of the divergence in nats: CryoDRGN's beta (default 1 / zdim) over two (``docs/conventions.md``)."""
        beta = self.beta if self.beta is not None else 1 / max(self.zdim, 1)
        return beta / 2

    def to_yaml(self) -> str:
        """The table as YAML."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @staticmethod
    def from_yaml(path: str | Path) -> "RunConfig":
        """The table of a file.

        Raises
        ------
        InputError: no such file, not YAML of plain values, or keys that this version does not know.
        """
        table = read_yaml(path)
        if not isinstance(table.get("run"), dict):
            raise InputError(f"{path}: expected a table 'run', found none; is this a cryorecon run?")
        kinds = get_type_hints(RunConfig)
        unknown = sorted(map(str, set(table["run"]) - set(kinds)))
        if unknown:
            raise InputError(f"{path}: expected keys of this version, found {', '.join(unknown)}; use the "
                             "version that made it")
        if "particles" not in table["run"]:
            raise InputError(f"{path}: expected the particles of the run, found none named; is this a cryorecon run?")
        for name, value in table["run"].items():
            if not _fits(value, kinds[name]):
                raise InputError(f"{path}: {name}: expected {getattr(kinds[name], '__name__', kinds[name])}, found {value!r}")
        try:
            return RunConfig(**table["run"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """All tables of a run's ``config.yaml``. Raises :class:`InputError`: no such file, not YAML of plain values."""
    text = read_text(path, "a run's configuration (is this a run directory?)", MAX_BYTES)
    try:
        table = _Plain(text).get_single_data()
    except NO_YAML as error:
        raise InputError(f"{path}: expected YAML, found {(str(error) or type(error).__name__).splitlines()[0]}") from None
    if not isinstance(table, dict):
        raise InputError(f"{path}: expected a table 'run', found none; is this a cryorecon run?")
    return table


class _Plain(yaml.SafeLoader):
    """YAML of plain values without aliases, by which a small file may become a large table, or an endless one, and without deep
    nesting, which takes the square of its depth."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """As ever, but not deep within another."""
        self._not_deep(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        """As ever, but not deep within another."""
        self._not_deep(len(self.indents))
        return super().add_indent(column)

    @staticmethod
    def _not_deep(depth: int) -> None:
        if depth > DEEPEST:
            raise yaml.YAMLError("tables nested deeply, which no run writes")

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As ever, but for aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which no run writes")
        return super().compose_node(parent, index)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a file is of a field's type; a whole number is a float too, but no truth value."""
    kinds = get_args(kind) or (kind,)
    return type(value) in kinds or (type(value) is int and float in kinds and abs(value) < 1 << 63)
