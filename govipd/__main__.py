"""`python -m govipd` is the daemon."""

import sys

from govipd.cli import main

sys.exit(main())
