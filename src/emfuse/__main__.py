"""`python -m emfuse`: the command, where it is on no path.

Layer 5.
"""

import sys

from emfuse.cli import main

if __name__ == "__main__":
    sys.exit(main())
