"""Whether this process sees the doubles of TensorRT and PyCUDA, as a test with the marker `double` does.

Such a test's module is imported twice: by pytest, which collects it, and by the process that runs it. What only the
second can import stands below `if IN_DOUBLE`.
"""

import os

IN_DOUBLE = "TRT_DOUBLE" in os.environ
