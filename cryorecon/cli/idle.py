"""Options that a command line names and that change nothing in its run: one table, and a line for each reason.

Defaults are never spoken of. With ``-n 0`` the options of training are not either: the run may be resumed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryorecon.cli.options import spelled
from cryorecon.training.config import RunConfig

TRAINING = ("epochs", "batch", "lr", "points", "checkpoint")
NETWORK = ("width", "layers", "encoding", "features", "feature_sigma")
LEVELS = ("t_ngrid", "base_healpy", "niter", "nkeptposes", "l_start", "bound", "search_memory")
BY_NETWORK = ("search_epochs", "ps_freq", "pretrain", "l_end")
SEARCH = ("init", "restarts", "searches", "polishes", "t_extent", *LEVELS, "schedule", *BY_NETWORK)


@dataclass(frozen=True)
class Rule:
    """fields: of the configuration, that change nothing ``when(config, searched)``. why: the reason, and what to do.
    ``searched``: whether poses are looked for."""

    fields: tuple[str, ...]
    when: Callable[[RunConfig, bool], bool]
    why: str


def _trains_nothing(config: RunConfig) -> bool:
    return config.volume == "voxels" and config.conformation in ("fixed", "posterior") and config.pose != "refine"


def _by_network(config: RunConfig, searched: bool) -> bool:
    """Whether a network of its own looks for the poses."""
    return searched and config.schedule == "network" and config.pose_init is None


RULES = (  # of several that hold for an option the first one speaks
    Rule(("poses",), lambda c, _: c.objective == "adversarial", "train_gan draws poses at random and knows none of any image; "
         "leave it out, or give it as --pose-prior, from which views are drawn"),
    Rule(("constraint",), lambda c, _: c.volume in ("archetypes", "conv"),
         "maps along alpha are positive by their making; leave out --volume to make it count"),
    Rule(("width",), lambda c, _: c.volume in ("density", "archetypes"),
         "voxels have no network; take --volume conv to make it count"),
    Rule(("archetypes", "tied"), lambda c, _: c.volume in ("density", "conv"),
         "there are none to mix; take --volume archetypes to make it count"),
    Rule(("contrast",), lambda c, _: c.volume == "conv",
         "a network's maps cost too much for a likelihood of all views; leave out --volume conv to make it count"),
    Rule(("critic_layers",), lambda c, _: c.critic == "polar",
         "templates have no layers; take --critic conv to make it count"),
    Rule(("penalty",), lambda c, _: c.critic_held == "spectral",
         "spectral norms need no penalty; leave out --critic-held to make it count"),
    Rule(("beta", "enc_width", "enc_layers"), lambda c, s: c.conformation == "posterior" and not _by_network(c, s),
         "z comes from its closed-form posterior; add --conformation encoder to make it count"),
    Rule(("enc_width", "enc_layers"), lambda c, s: c.conformation == "table" and not _by_network(c, s),
         "z is a free number of each particle; take --conformation encoder to make it count"),
    Rule(("atoms",), lambda c, _: c.road == "plain",
         "the prior of z is learned by the closed-form stage alone; leave out --road plain to make it count"),
    Rule(TRAINING, lambda c, s: _trains_nothing(c) and c.epochs > 0 and not _by_network(c, s),
         "--volume voxels takes the closed-form maps as they are; leave it out to train a network"),
    Rule(NETWORK, lambda c, s: c.volume == "voxels" and not _by_network(c, s),
         "--volume voxels has no network; leave it out to make it count"),
    Rule(("amp",), lambda c, _: c.volume == "voxels" and c.amp, "--volume voxels has no network; leave out one of the two"),
    Rule(("feature_sigma",), lambda c, _: c.encoding == "geometric",
         "--pe-type geometric has no random features; leave it out to make it count"),
    Rule(SEARCH, lambda _, searched: not searched,
         "the particles' poses are taken as they are; add --search-poses to make it count"),
    Rule(("init",), lambda c, _: c.pose_init is not None,
         "--pose-init says where the search begins; leave out one of the two"),
    Rule(("init",), lambda c, _: c.schedule == "network",
         "the network searches in maps of its own; leave out --schedule network to make it count"),
    Rule(("restarts", "base_healpy"), lambda c, _: c.pose_init is not None,
         "a search near given poses starts from these, on a grid of its own; leave out --pose-init to make it count"),
    Rule(("schedule", *BY_NETWORK), lambda c, _: c.pose_init is not None,
         "a search near given poses needs no other schedule; leave out --pose-init to make it count"),
    Rule(BY_NETWORK, lambda c, _: c.schedule != "network", "closed-form EM finds the poses; add --schedule network to make it "
         "count"),
    Rule(("restarts",), lambda c, _: c.schedule == "network" and c.pose_init is None,
         "the network searches by epochs; say --search-epochs and --ps-freq instead"),
    Rule(("restarts",), lambda c, _: c.init is not None, "--init is the one start; leave out one of the two"),
    Rule(LEVELS, lambda c, _: c.searches == 0 and c.schedule != "network",
         "--searches 0 leaves polishing alone; take 1 or more to make it count"),
    Rule(("poses",), lambda c, _: c.pose_init is not None, "--pose-init says the poses; leave out one of the two"),
    Rule(("poses",), lambda c, _: c.pose == "search",
         "poses are searched for; leave out --search-poses to take these, or give them as --pose-init"),
    Rule(("mask_radius",), lambda c, _: c.mask is not None, "--mask says the mask; leave out one of the two"),
    Rule(("tilt_deg",), lambda c, _: c.tilt is None, "there are no tilted images; add --tilt to make it count"),
)


def idle(config: RunConfig, named: Collection[str], searched: bool) -> list[str]:
    """One line for each reason for which fields that were ``named`` change nothing. ``searched``: whether poses are looked
    for."""
    lines = []
    left = set(named)
    for rule in RULES:
        found = [name for name in rule.fields if name in left] if rule.when(config, searched) else []
        left.difference_update(found)
        if found:
            lines.append(f"{_listed([spelled(name) for name in found])} changes nothing in this run: {rule.why}")
    return lines


def _listed(names: list[str]) -> str:
    """``--a``, or ``each of --a, --b``."""
    return names[0] if len(names) == 1 else f"each of {', '.join(names)}"
