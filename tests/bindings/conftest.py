"""The helpers of this folder can be imported by its tests, which pytest's importlib mode would not allow."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
