"""The classes a user derives from, besides the logger and the calibrators."""

import sys as _sys

from ._enums import double_enums as _enums
from ._setup import Derivable as _Derivable


class IVersionedInterface:
    @property
    def api_language(self):
        return _enums["APILanguage"].PYTHON


class IProgressMonitor(_Derivable):
    def phase_start(self, phase_name, parent_phase, num_steps):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_start"')

    def step_complete(self, phase_name, step):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::step_complete"')

    def phase_finish(self, phase_name):
        raise RuntimeError('Tried to call pure virtual function "IProgressMonitor::phase_finish"')


class IProfiler(_Derivable):
    def report_layer_time(self, layer_name, ms):
        raise RuntimeError('Tried to call pure virtual function "IProfiler::report_layer_time"')


class Profiler(IProfiler):
    def report_layer_time(self, layer_name, ms):
        _sys.stdout.write(f"{layer_name}: {ms}ms\n")


class IOutputAllocator(_Derivable):
    pass


class IErrorRecorder(_Derivable):
    pass


class IGpuAllocator(_Derivable, IVersionedInterface):
    pass
