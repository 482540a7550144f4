"""A search has only the mean map to look at; its best poses are weighed anew on each particle's own conformation."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from cryorecon.data.loader import Batch
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Search
from cryorecon.inference.pose.table import PoseTable


class Rescore(nn.Module):
    """Of the pose that the table holds and the best ones of a search, the likeliest with z integrated out.

    search: with ``keep`` of several. conformation: weighs K poses of an image (:class:`Posterior` in the search's band).
    """

    def __init__(self, table: PoseTable, search: Search, conformation: nn.Module):
        super().__init__()
        self.table, self.search, self.conformation = table, search, conformation

    def forward(self, hypotheses: Hypotheses, batch: Batch, score: Callable | None = None) -> Hypotheses:
        """The likeliest pose of every image; the table holds it too."""
        table = self.table
        before = table(hypotheses, batch)
        found = self.search(hypotheses, batch, score)
        rotation = torch.cat([before.rotation, found.rotation], 1)
        shift = torch.cat([before.shift, found.shift], 1)
        images, count = shift.shape[:2]
        empty = shift.new_zeros(images, count)
        weighed = self.conformation(Hypotheses(rotation, shift, empty[..., None][..., :0], empty, empty), batch, score)
        best = weighed.log_weight.argmax(1)
        first = batch.particle_starts()
        particles = batch.particle[first]
        tilt = table.tilts[table.tilt_of[batch.image[first]]] if len(table.tilt_of) > 1 else torch.eye(3).to(rotation)
        row = torch.arange(images, device=best.device)
        chosen = rotation[row, best][first]
        table.store(particles, tilt.transpose(-1, -2) @ chosen, shift[row, best][first],
                    table.evidence[particles])
        return replace(before, rotation=rotation[row, best][:, None], shift=shift[row, best][:, None])
