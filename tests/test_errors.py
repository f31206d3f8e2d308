"""What the machine lacked: libraries' errors of many kinds become one line with the fix."""

import pytest

from siamese.errors import lack

# What torch, oneDNN, CUDA, Python and the dynamic linker really say.
NO_SHARED = (
    "unable to allocate shared memory(shm) for file </torch_7_3_0>: No space left on device (28)",
    "unable to resize file </torch_7_3_0> to the right size: File too large (27)",
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit.",
)
NO_LOADER = (
    "DataLoader worker (pid 7) is killed by signal: Killed. ",
    "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
)
NO_GPU = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
)
NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
    "could not create a primitive",
    "could not create a memory object",
    "std::bad_alloc",
    "can't start new thread",
)


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        *((message, "docker run --shm-size") for message in NO_SHARED),
        *((message, "a loader process was killed") for message in NO_LOADER),
        *((message, "the GPU has not enough memory") for message in NO_GPU),
        *((message, "ulimit -v unlimited") for message in NO_MEMORY),
    ],
    ids=lambda text: text[:30],
)
def test_each_lack_is_told_with_its_fix(message: str, fix: str) -> None:
    told = lack(RuntimeError(message))
    assert told is not None
    assert fix in told
    assert "\n" not in told
    assert message not in told


def test_pythons_own_error_has_no_words() -> None:
    assert "not enough memory" in (lack(MemoryError()) or "")


def test_a_library_that_cannot_be_mapped_is_told_as_such() -> None:
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert "not enough memory to load torch" in (lack(error) or "")


def test_what_fails_while_a_module_is_looked_for_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoMemory:
        def find_spec(self, *_: object) -> None:
            raise MemoryError

    monkeypatch.setattr("sys.meta_path", [NoMemory()])
    with pytest.raises(MemoryError) as caught:
        import large_library  # type: ignore[import-not-found]  # noqa: F401
    assert "not enough memory to load torch" in (lack(caught.value) or "")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
        ImportError("No module named 'timm'"),
        ValueError("out of memory"),  # not how a library tells it
        OSError(28, "No space left on device"),
        KeyboardInterrupt("Cannot allocate memory"),
    ],
)
def test_other_errors_are_not_taken_for_a_lack(error: BaseException) -> None:
    assert lack(error) is None
