"""The exceptions: OSErrors with errno, facts as fields, and they survive pickling."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from dmasync import AllocationError, DmaSyncError, DmaSyncTimeout, NoProviderError, Step


def test_a_sync_error_tells_what_was_tried_on_which_descriptor_and_how_it_ended():
    error = DmaSyncError(errno.EIO, 12, 6, Step.END, 3)
    assert isinstance(error, OSError)
    assert (error.errno, error.fd, error.flags, error.step, error.attempts) == (errno.EIO, 12, 6, Step.END, 3)
    assert error.strerror == "END of dma-buf fd 12 with flags 0x6 failed after 3 attempts: Input/output error"


def test_one_attempt_is_not_called_attempts():
    assert "after 1 attempt:" in str(DmaSyncError(errno.EIO, 12, 3, Step.START, 1))


def test_a_timeout_is_caught_as_either_kind():
    error = DmaSyncTimeout(errno.ETIMEDOUT, 12, 3, Step.START, 9, reason="deadline of 1 s passed")
    assert isinstance(error, DmaSyncError)
    assert isinstance(error, TimeoutError)
    assert str(error).endswith("START of dma-buf fd 12 with flags 0x3 failed after 9 attempts: deadline of 1 s passed")


@pytest.mark.parametrize(
    "error",
    [
        DmaSyncError(errno.EIO, 12, 6, Step.END, 3),
        DmaSyncError(errno.EIO, 12, 6, Step.END, 1, reason="never got through"),
        DmaSyncTimeout(errno.ETIMEDOUT, 12, 3, Step.START, 9, reason="deadline of 1 s passed"),
        NoProviderError(errno.EACCES, "none could be opened", (("/dev/udmabuf", errno.EACCES),)),
        AllocationError(errno.ENOMEM, "/dev/dma_heap/system: no memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])  # noqa: S301
def test_errors_survive_pickling_and_copying(error, copied):
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.errno == error.errno
    assert vars(again) == vars(error)


def test_a_sync_error_without_a_number_can_be_rebuilt():
    error = DmaSyncError(errno.EIO, 12, 6, Step.END, 3)
    error.errno = None
    assert pickle.loads(pickle.dumps(error)).errno == errno.EIO  # noqa: S301


def test_no_provider_knows_what_was_tried():
    error = NoProviderError(errno.ENOENT, "nothing there", (("/dev/udmabuf", errno.ENOENT),))
    assert error.tried == (("/dev/udmabuf", errno.ENOENT),)
    assert (error.errno, error.strerror) == (errno.ENOENT, "nothing there")
    assert NoProviderError(errno.ENOENT, "nothing asked for").tried == ()


@pytest.mark.parametrize("kind", [DmaSyncError, DmaSyncTimeout, AllocationError, NoProviderError])
def test_every_error_is_an_oserror(kind):
    assert issubclass(kind, OSError)
