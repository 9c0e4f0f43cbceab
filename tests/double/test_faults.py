"""Each fault of the stand-ins does what its name says, and memory behaves as on a GPU."""

import pytest

pytest.importorskip("polygraphy")


@pytest.mark.parametrize(
    ("fault", "severity", "text"),
    [
        ("none_plan", "ERROR", "Could not find any implementation"),
        ("oom", "ERROR", "OutOfMemory"),
        ("cancel", None, None),
    ],
)
def test_faults_that_give_no_plan(run, fault, severity, text):
    run(f"assert plan_of(plain()) is None\nassert {severity!r} is None or LOG.has({severity!r}, {text!r})", fault=fault)


def test_fault_of_the_parser(run):
    run(
        """
        parser = trt.OnnxParser(BUILDER.create_network(0), LOG)
        assert not parser.parse(plain().SerializeToString())
        assert parser.num_errors == 1 and parser.get_error(0).desc() and LOG.has("ERROR", "UNSUPPORTED_NODE")
        """,
        fault="parser",
    )


def test_faults_of_the_kernels(run):
    run(
        """
        assert b"i8i8" not in plan_of(quantized())
        assert LOG.has("WARNING", "Missing scale and zero-point for tensor h, expect fall back to non-int8")
        """,
        fault="missing_scales,no_int8",
    )


def test_interrupt_comes_after_some_progress(run):
    run(
        """
        class Monitor(trt.IProgressMonitor):
            def __init__(self):
                trt.IProgressMonitor.__init__(self)
                self.steps, self.open = 0, []

            def phase_start(self, phase_name, parent_phase, num_steps):
                self.open.append(phase_name)

            def step_complete(self, phase_name, step):
                self.steps += 1
                return True

            def phase_finish(self, phase_name):
                self.open.remove(phase_name)

        monitor = Monitor()
        try:
            plan_of(plain(), progress_monitor=monitor)
        except KeyboardInterrupt:
            assert monitor.steps > 0 and monitor.open == []
        else:
            raise AssertionError
        """,
        fault="interrupt",
    )


def test_interrupt_comes_while_a_callback_runs(run):
    run(
        """
        class Monitor(trt.IProgressMonitor):
            seen = False

            def phase_start(self, phase_name, parent_phase, num_steps):
                pass

            def step_complete(self, phase_name, step):
                try:
                    self.draw()
                except KeyboardInterrupt:
                    self.seen = True
                return not self.seen

            def draw(self):
                pass

            def phase_finish(self, phase_name):
                pass

        monitor = Monitor()
        assert plan_of(plain(), progress_monitor=monitor) is None and monitor.seen
        """,
        fault="interrupt",
    )


@pytest.mark.parametrize("stop", ["return False", "raise ValueError"])
def test_monitor_can_stop_the_build(run, stop):
    run(
        f"""
        class Monitor(trt.IProgressMonitor):
            def phase_start(self, phase_name, parent_phase, num_steps):
                pass

            def step_complete(self, phase_name, step):
                {stop}

            def phase_finish(self, phase_name):
                pass

        assert plan_of(plain(), progress_monitor=Monitor()) is None
        """
    )


def test_faults_of_a_run(run):
    run("context_on()\nassert execute(engine_of(plan_of(plain())), rows(2)) is None", fault="enqueue")
    run("context_on()\nassert np.isnan(execute(engine_of(plan_of(plain())), rows(2))).all()", fault="bad_logits")
    run(
        """
        context_on()
        try:
            cuda.mem_alloc(8)
        except cuda.MemoryError as error:
            assert "out of memory" in str(error)
        else:
            raise AssertionError
        """,
        fault="mem",
    )


def test_plan_is_for_its_version_and_gpu_alone(run, tmp_path):
    path = tmp_path / "model.plan"
    run(f"open({str(path)!r}, 'wb').write(plan_of(plain()))")
    plan = path.read_bytes()
    code = f"""
        engine = engine_of(open({str(path)!r}, "rb").read())
        assert (engine is None) == bool(TEXT) and (engine or LOG.has("ERROR", TEXT)), LOG.lines
    """
    for text, chosen in (
        ("", {}),
        ("Version tag does not match", {"version": "10.14.1.48"}),
        ("Version tag does not match", {"version": "11.4.0.106"}),
        ("incompatible device, expecting compute 8.6 got compute 7.5", {"sm": "8.6"}),
    ):
        run(code.replace("TEXT", repr(text)), **chosen)
    path.write_bytes(b"nonsense")
    run(code.replace("TEXT", repr("Magic tag does not match")))
    path.write_bytes(plan[:-5])
    run(code.replace("TEXT", repr("ends too early")))


def test_memory_is_a_gpus(run):
    run(
        """
        def refused(work, kind, text):
            try:
                work()
            except kind as error:
                assert text in str(error), error
            else:
                raise AssertionError(text)

        refused(cuda.Device.count, cuda.LogicError, "initialization")
        cuda.init()
        refused(lambda: cuda.mem_alloc(8), cuda.LogicError, "no currently active context")
        held = context_on()
        memory = cuda.mem_alloc(8)
        assert int(memory) % 256 == 0 and cuda.double_allocated() == 8
        refused(lambda: cuda.memcpy_htod(memory, np.zeros(9, np.uint8)), cuda.LogicError, "invalid argument")
        refused(lambda: cuda.memcpy_htod(memory, np.zeros((4, 4), np.uint8)[:, ::2]), ValueError, "contiguous")
        memory.free()
        refused(memory.free, cuda.LogicError, "invalid resource handle")
        assert cuda.double_allocated() == 0
        engine = engine_of(plan_of(plain()))
        context = engine.create_execution_context()
        context.set_input_shape("x", (4, 8))
        small = cuda.mem_alloc(8)
        context.set_tensor_address("x", int(small))
        context.set_tensor_address("y", int(small))
        assert not context.execute_async_v3(0) and LOG.has("ERROR", "less than 128 bytes")
        managed = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        managed.set_input_shape("x", (1, 8))
        big = cuda.mem_alloc(32)
        managed.set_tensor_address("x", int(big))
        managed.set_tensor_address("y", int(big))
        assert not managed.execute_async_v3(0) and LOG.has("ERROR", "USER_MANAGED")
        room = cuda.mem_alloc(engine.device_memory_size_v2)
        managed.set_device_memory(int(room), engine.device_memory_size_v2)
        assert managed.execute_async_v3(0)
        held.pop()
        held.detach()
        """
    )


def test_lazy_streams_wait(run):
    run(
        """
        context_on()
        engine, x = engine_of(plan_of(plain())), rows(2)
        assert (execute(engine, x, wait=False) == 7).all()
        np.testing.assert_allclose(execute(engine, x), by_onnxruntime(plain(), x), rtol=1e-6)
        """,
        streams="lazy",
    )
