"""`python -m blendrun`: the command. Nothing is imported from the folder that it happens to run in."""

import sys

# Python puts the working folder first, where a job's own random.py may lie.
if not sys.flags.safe_path and sys.path:
    del sys.path[0]

from blendrun.cli import main  # only now

if __name__ == "__main__":
    main()
