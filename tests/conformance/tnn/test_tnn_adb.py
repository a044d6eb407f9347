"""Runs on a phone through the real adb client, which talks to a server of the tests in place of a phone's."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from adb_server import Phone, serving
from tnn_data import file, inputs, naive_outputs

from conformance.tnn.adb import AdbRunner
from conformance.tnn.runner import Settings
from refimpl.errors import CandidateError

pytestmark = pytest.mark.runtimes
PROGRAM = Path(__file__).parents[2] / "support" / "tnn_stand_in.py"


@pytest.fixture
def phone(tmp_path, monkeypatch):
    device = Phone(tmp_path / "device")
    device.folder.mkdir()
    (tmp_path / "TNNTest").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))} "$@"\n'
    )
    monkeypatch.setenv("STAND_IN_ONNX", str(file("gemm", ".onnx")))
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(device) as port:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
        yield device


def run(phone: Phone, serial: str | None = None, timeout: float = 30):
    with AdbRunner(phone.folder.parent / "TNNTest", serial=serial) as runner:
        return runner.run(file("gemm", ".tnnproto"), inputs("gemm"), Settings("ARM", timeout=timeout))


@pytest.mark.parametrize("serial", [None, "phone"])
def test_a_run_through_the_real_client(serial, phone):
    found = run(phone, serial)
    np.testing.assert_allclose(found.outputs["y"], naive_outputs("gemm")["y"], atol=1e-5)
    assert list(phone.folder.iterdir()) == []


@pytest.mark.parametrize("service", [1, 2, 3, 5, 8, 11])
def test_a_lost_connection_is_retried(service, phone):
    phone.lose_at = {service}
    found = run(phone)
    np.testing.assert_allclose(found.outputs["y"], naive_outputs("gemm")["y"], atol=1e-5)
    assert phone.waits == 1
    assert list(phone.folder.iterdir()) == []


def test_what_the_real_client_says_is_understood(phone, monkeypatch):
    with pytest.raises(CandidateError, match="'other' not found"):
        run(phone, "other")
    phone.full = True
    with pytest.raises(CandidateError, match=r"(?s)No space left on device.*; free space"):
        run(phone)
    assert list(phone.folder.iterdir()) == []
    phone.full, phone.present = False, False
    with pytest.raises(CandidateError, match=r"no devices/emulators found; connect the phone"):
        run(phone)
    phone.present = True
    monkeypatch.setenv("STAND_IN_MODE", "hang")
    with pytest.raises(CandidateError, match="no answer within 2 s"):
        run(phone, timeout=2)
    assert list(phone.folder.iterdir()) == []
