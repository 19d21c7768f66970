"""`python -m govipd` runs the daemon."""

import sys

from govipd.cli import main

sys.exit(main())
