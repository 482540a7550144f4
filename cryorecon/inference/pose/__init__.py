"""Treatments of the pose, one file each."""

from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.prior import Prior
from cryorecon.inference.pose.refine import Refine
from cryorecon.inference.pose.table import PoseTable

POSES = {"given": Given, "refine": Refine, "search": PoseTable, "prior": Prior}
