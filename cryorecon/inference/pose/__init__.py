"""Treatments of the pose, one file each."""

from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.refine import Refine

POSES = {"given": Given, "refine": Refine}
