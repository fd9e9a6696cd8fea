"""python -m lighthouse_attention_cli: as the command lighthouse."""

import sys

from .launcher import main

sys.exit(main())
