"""``python -m cryorecon`` is ``cryorecon``."""

import sys

from cryorecon.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
