"""``python -m meinheld`` is the command ``meinheld``."""

import sys

from meinheld.cli import main

sys.exit(main())
