"""`python -m infra.local`: the same as `rdev up`."""

import sys

from infra.local.main import main

sys.exit(main())
