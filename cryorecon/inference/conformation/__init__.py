"""Treatments of the conformation z, one file each."""

from cryorecon.inference.conformation.encoder import Encoder
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.conformation.prior import Prior
from cryorecon.inference.conformation.table import Table

CONFORMATIONS = {"fixed": Fixed, "encoder": Encoder, "posterior": Posterior, "table": Table, "prior": Prior}
